import Model
import RPC
import Testing

private func frames(_ chunks: [[UInt8]], limits: FrameLimits = FrameLimits()) throws -> [String] {
  var reader = FrameReader(limits: limits)
  var found: [String] = []
  for chunk in chunks {
    chunk.withUnsafeBytes { reader.append($0) }
    while let frame = try reader.next() { found.append(String(decoding: frame, as: UTF8.self)) }
  }
  return found
}

@Suite struct FramingTests {
  @Test("both framings give the same frames however the bytes are cut")
  func anyCut() throws {
    let lines = Array("{\"a\":1}\n\r\n{\"b\":2}\n".utf8)
    let headers = Array("Content-Length: 7\r\n\r\n{\"a\":1}Content-Type: x\r\nContent-Length: 7\r\n\r\n{\"b\":2}".utf8)
    for bytes in [lines, headers] {
      for cut in 1...bytes.count {
        let chunks = stride(from: 0, to: bytes.count, by: cut).map { Array(bytes[$0..<min($0 + cut, bytes.count)]) }
        let texts = try frames(chunks).map { $0.replacing("\r", with: "") }
        #expect(texts == ["{\"a\":1}", "{\"b\":2}"])
      }
    }
  }

  @Test("a frame of exactly the limit passes, one byte more does not", arguments: [0, 1])
  func limit(_ extra: Int) throws {
    var limits = FrameLimits()
    limits.frame = 100
    let body = [UInt8](repeating: UInt8(ascii: "x"), count: 100 + extra)
    let byHeader = Array("Content-Length: \(body.count)\r\n\r\n".utf8) + body
    for bytes in [body + [0x0A], byHeader] {
      if extra == 0 {
        #expect(try frames([bytes], limits: limits).count == 1)
      } else {
        #expect(throws: FrameFault.self) { try frames([bytes], limits: limits) }
      }
    }
  }

  @Test("a line without an end is refused as soon as it is too long, not when it ends")
  func endlessLine() throws {
    var limits = FrameLimits()
    limits.frame = 10
    #expect(throws: FrameFault.tooLarge(limit: 10)) { try frames([Array("{aaaaaaaaaaaaaaaa".utf8)], limits: limits) }
  }

  @Test(
    "headers that are not right are refused",
    arguments: [
      "Content-Length: -1\r\n\r\n", "Content-Length: 0\r\n\r\n", "Content-Length: 99999999999\r\n\r\n",
      "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", "C\r\n\r\n", "Cookie: x\r\n\r\n", "Content-Length: 1e3\r\n\r\n",
    ])
  func badHeaders(_ text: String) {
    #expect(throws: FrameFault.self) { try frames([Array(text.utf8)]) }
  }

  @Test("a header block without an end is refused at its bound")
  func endlessHeader() {
    #expect(throws: FrameFault.self) {
      try frames([Array("Content-Length: 5".utf8) + [UInt8](repeating: 0x20, count: 2000)])
    }
  }
}
