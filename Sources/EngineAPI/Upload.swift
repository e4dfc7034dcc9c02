/// Bytes on their way from a ByteSource to libcurl. Touched only on the loop.
final class Upload {
  enum Taken {
    case bytes(Int)
    case later
    case end
    case failed(String)
  }

  /// Bytes held before the source is made to wait.
  private static let capacity = 256 << 10

  private var pieces: [[UInt8]] = []
  private var offset = 0
  private var held = 0
  private var ended = false
  private var failure: String?
  private var room: CheckedContinuation<Bool, Never>?
  /// Asks the source for pieces; cancelled when the transfer ends.
  var pump: Task<Void, Never>?

  /// Moves what there is into `room`.
  func take(into room: UnsafeMutableRawBufferPointer) -> Taken {
    if let failure { return .failed(failure) }
    guard let piece = pieces.first else { return ended ? .end : .later }
    let count = min(room.count, piece.count - offset)
    room.copyBytes(from: piece[offset..<offset + count])
    offset += count
    held -= count
    if offset == piece.count {
      pieces.removeFirst()
      offset = 0
    }
    if held < Self.capacity { self.room.take()?.resume(returning: true) }
    return .bytes(count)
  }

  /// Adds a piece; true: there is room for the next at once.
  func add(_ piece: [UInt8]) -> Bool {
    guard !piece.isEmpty else { return true }
    pieces.append(piece)
    held += piece.count
    return held < Self.capacity
  }

  /// Keeps who waits for room until there is some, or the transfer has ended (false).
  func awaitRoom(_ waiter: CheckedContinuation<Bool, Never>) { room = waiter }

  func finish(_ failure: String?) {
    ended = true
    self.failure = failure
  }

  /// The transfer is over: the source is asked for no more.
  func close() {
    pump?.cancel()
    room.take()?.resume(returning: false)
  }
}
