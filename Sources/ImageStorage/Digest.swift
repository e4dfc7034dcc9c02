internal import CDigest

/// A SHA-256 (FIPS 180-4) that takes bytes as they come.
struct SHA256 {
  private var state = cd_sha256()

  init() { cd_sha256_begin(&state) }

  mutating func add(_ bytes: UnsafeRawBufferPointer) { cd_sha256_add(&state, bytes.baseAddress, bytes.count) }

  /// Ends it: 64 lower-case hexadecimal digits.
  consuming func end() -> Digest {
    var bytes = [UInt8](repeating: 0, count: 32)
    cd_sha256_end(&state, &bytes)
    return Digest(bytes: bytes)
  }
}

/// A SHA-256 as people and files write it, without `sha256:`. Safe as a file's name.
package struct Digest: Sendable, Hashable, CustomStringConvertible {
  /// 64 lower-case hexadecimal digits.
  package let hex: String

  /// From `sha256:HEX` or `HEX`; nil for anything else.
  package init?(_ text: some StringProtocol) {
    let hex = text.hasPrefix("sha256:") ? String(text.dropFirst(7)) : String(text)
    guard hex.utf8.count == 64, hex.utf8.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }) else {
      return nil
    }
    self.hex = hex
  }

  fileprivate init(bytes: [UInt8]) {
    let digits = Array("0123456789abcdef".utf8)
    hex = String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
  }

  /// Of bytes that are all there.
  package init(of bytes: [UInt8]) {
    var hash = SHA256()
    bytes.withUnsafeBytes { hash.add($0) }
    self = hash.end()
  }

  /// `sha256:HEX`, as an engine names images.
  package var description: String { "sha256:\(hex)" }
}
