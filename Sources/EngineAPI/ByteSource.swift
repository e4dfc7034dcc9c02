package import Linux
internal import Glibc

/// Bytes to send, asked for piece by piece as the Engine takes them.
package struct ByteSource: Sendable {
  /// The next piece; nil at the end; an error ends the upload. Empty pieces are skipped.
  package let next: @Sendable () async throws -> [UInt8]?

  /// A source that asks `next` for each piece; it is never asked twice at a time.
  package init(_ next: @escaping @Sendable () async throws -> [UInt8]?) { self.next = next }

  /// A stream's bytes, taken as they are sent: what one Engine saves, another loads.
  package static func stream(_ archive: ImageArchive) -> ByteSource {
    let reader = ArchiveReader(archive)
    return ByteSource { try await reader.next() }
  }

  /// Bytes that are in memory already.
  package static func bytes(_ bytes: [UInt8]) -> ByteSource {
    let rest = Remaining(bytes)
    return ByteSource { await rest.take() }
  }

  /// An open file from its position to its end. It is read on a thread of its own, which ends with the source.
  package static func file(_ file: SharedDescriptor) throws(SystemFault) -> ByteSource {
    let reader = FileReader(file, try EventLoop(name: "engine-upload"))
    return ByteSource { try await reader.next() }
  }
}

private actor ArchiveReader {
  private var iterator: ImageArchive.Iterator?
  init(_ archive: ImageArchive) { iterator = archive.makeAsyncIterator() }

  func next() async throws(EngineFailure) -> [UInt8]? {
    // Taken out while it is asked: it is asked by one reader at a time.
    guard var iterator = iterator.take() else { return nil }
    let piece = try await iterator.next()
    self.iterator = iterator
    return piece
  }
}

private actor Remaining {
  private var bytes: [UInt8]?
  init(_ bytes: [UInt8]) { self.bytes = bytes }
  func take() -> [UInt8]? {
    defer { bytes = nil }
    return bytes
  }
}

/// Reads a file on a loop that nothing else uses, because read(2) of a file waits for the disk.
private actor FileReader {
  private let file: SharedDescriptor
  private nonisolated let loop: EventLoop
  nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

  init(_ file: SharedDescriptor, _ loop: EventLoop) {
    self.file = file
    self.loop = loop
  }

  deinit { loop.stop() }

  func next() throws(SystemFault) -> [UInt8]? {
    var failure: SystemFault?
    let bytes = [UInt8](unsafeUninitializedCapacity: 65536) { buffer, count in
      do throws(SystemFault) {
        count = try file.withRaw { (raw) throws(SystemFault) in
          try check("read") { read(raw, buffer.baseAddress, buffer.count) }
        }
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
    return bytes.isEmpty ? nil : bytes
  }
}
