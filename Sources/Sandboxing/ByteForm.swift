/// Bytes that do not say what they should: cut short, too long, or of another version.
package struct MalformedBytes: Error, Equatable, CustomStringConvertible {
  package var what: String
  package var description: String { "malformed \(what)" }
}

/// Writes little-endian numbers and length-prefixed lists.
struct ByteWriter {
  private(set) var bytes: [UInt8] = []

  mutating func number<Number: FixedWidthInteger>(_ value: Number) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }

  mutating func flag(_ value: Bool) { bytes.append(value ? 1 : 0) }

  mutating func text(_ value: String) { block(Array(value.utf8)) }

  mutating func block(_ value: [UInt8]) {
    number(UInt32(value.count))
    bytes += value
  }

  mutating func list<Element>(_ values: [Element], _ write: (inout ByteWriter, Element) -> Void) {
    number(UInt32(values.count))
    for value in values { write(&self, value) }
  }
}

/// Reads what `ByteWriter` wrote; every length is checked against what is left before anything is allocated.
struct ByteReader {
  private var rest: ArraySlice<UInt8>
  private let what: String

  /// The most elements of one list.
  static let maximumList = 65_536

  init(_ bytes: [UInt8], _ what: String) {
    rest = bytes[...]
    self.what = what
  }

  var isAtEnd: Bool { rest.isEmpty }

  func fail() -> MalformedBytes { MalformedBytes(what: what) }

  mutating func number<Number: FixedWidthInteger>(_: Number.Type = Number.self) throws(MalformedBytes) -> Number {
    let width = Number.bitWidth / 8
    guard rest.count >= width else { throw fail() }
    var value: Number = 0
    for (index, byte) in rest.prefix(width).enumerated() { value |= Number(truncatingIfNeeded: byte) << (8 * index) }
    rest = rest.dropFirst(width)
    return value
  }

  mutating func flag() throws(MalformedBytes) -> Bool {
    switch try number(UInt8.self) {
    case 0: false
    case 1: true
    default: throw fail()
    }
  }

  /// Text without NUL, which no path, argument or variable can hold.
  mutating func text() throws(MalformedBytes) -> String {
    let bytes = try block()
    guard !bytes.contains(0), let text = String(validating: bytes, as: UTF8.self) else { throw fail() }
    return text
  }

  mutating func block() throws(MalformedBytes) -> [UInt8] {
    let count = Int(try number(UInt32.self))
    guard count <= rest.count else { throw fail() }
    defer { rest = rest.dropFirst(count) }
    return Array(rest.prefix(count))
  }

  mutating func list<Element>(_ read: (inout ByteReader) throws(MalformedBytes) -> Element) throws(MalformedBytes)
    -> [Element]
  {
    let count = Int(try number(UInt32.self))
    guard count <= Self.maximumList, count <= rest.count else { throw fail() }
    var values: [Element] = []
    for _ in 0..<count { values.append(try read(&self)) }
    return values
  }
}
