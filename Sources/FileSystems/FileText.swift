internal import Model

/// Bytes of files in JSON.
package enum FileText {
  /// As text where it is UTF-8 that JSON can hold without growing much, else as base64; and which of the two.
  package static func encode(_ bytes: [UInt8]) -> (data: String, encoding: String) {
    var surplus = 0
    for byte in bytes {
      switch byte {
      case 0x22, 0x5C, 0x0A, 0x0D, 0x09: surplus += 1
      case ..<0x20, 0x7F: return (Base64.encode(bytes), "base64")
      default: continue
      }
    }
    guard surplus <= bytes.count / 2 + 64, let text = String(validating: bytes, as: UTF8.self) else {
      return (Base64.encode(bytes), "base64")
    }
    return (text, "utf8")
  }

  /// The bytes of `data`, or nil if it is not what `encoding` says, or there is no such encoding.
  package static func decode(_ data: String, _ encoding: String) -> [UInt8]? {
    switch encoding {
    case "utf8": Array(data.utf8)
    case "base64": Base64.decode(data)
    default: nil
    }
  }
}
