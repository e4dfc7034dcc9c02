/// RFC 4648 base64 with padding.
package enum Base64 {
  private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

  /// By character; 64: none.
  private static let digits: [UInt8] = {
    var digits = [UInt8](repeating: 64, count: 256)
    for (digit, character) in alphabet.enumerated() { digits[Int(character)] = UInt8(digit) }
    return digits
  }()

  package static func encode(_ bytes: some Collection<UInt8>) -> String {
    var text: [UInt8] = []
    text.reserveCapacity((bytes.count + 2) / 3 * 4)
    var iterator = bytes.makeIterator()
    while let first = iterator.next() {
      let second = iterator.next()
      let third = second == nil ? nil : iterator.next()
      let word = UInt32(first) << 16 | UInt32(second ?? 0) << 8 | UInt32(third ?? 0)
      text.append(alphabet[Int(word >> 18)])
      text.append(alphabet[Int(word >> 12 & 63)])
      text.append(second == nil ? UInt8(ascii: "=") : alphabet[Int(word >> 6 & 63)])
      text.append(third == nil ? UInt8(ascii: "=") : alphabet[Int(word & 63)])
    }
    return String(decoding: text, as: UTF8.self)
  }

  /// Nil for anything that is not whole, padded base64.
  package static func decode(_ text: some StringProtocol) -> [UInt8]? {
    let characters = Array(text.utf8)
    guard characters.count % 4 == 0 else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(characters.count / 4 * 3)
    for start in stride(from: 0, to: characters.count, by: 4) {
      let last = start + 4 == characters.count
      let padding = last ? characters[start..<start + 4].reversed().prefix { $0 == UInt8(ascii: "=") }.count : 0
      guard padding <= 2 else { return nil }
      var word: UInt32 = 0
      for index in start..<start + 4 - padding {
        let digit = digits[Int(characters[index])]
        guard digit < 64 else { return nil }
        word |= UInt32(digit) << UInt32(18 - 6 * (index - start))
      }
      bytes.append(UInt8(word >> 16 & 255))
      if padding < 2 { bytes.append(UInt8(word >> 8 & 255)) }
      if padding < 1 { bytes.append(UInt8(word & 255)) }
    }
    return bytes
  }
}
