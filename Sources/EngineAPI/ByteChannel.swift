internal import Synchronization

/// Bytes between one producer on the loop and one consumer task, with a bound: a full channel makes the producer wait.
final class ByteChannel: Sendable {
  enum Offer { case taken, full, closed }

  private enum End {
    case finished
    case failed(EngineFailure)
  }

  private struct State {
    var buffer: [UInt8] = []
    var end: End?
    var producerWaits = false
    var abandoned = false
    var consumer: CheckedContinuation<Void, Never>?
  }

  // Guards: the bytes in flight and who waits for whom. Never held while anyone is called.
  private let state = Mutex(State())
  private let capacity: Int
  /// Called (from any thread) when a producer that was told `full` may go on.
  private let onRoom: @Sendable () -> Void
  /// Called (from any thread) once when the consumer gives up.
  private let onAbandon: @Sendable () -> Void

  init(capacity: Int, onRoom: @escaping @Sendable () -> Void, onAbandon: @escaping @Sendable () -> Void) {
    self.capacity = capacity
    self.onRoom = onRoom
    self.onAbandon = onAbandon
  }

  // MARK: Producer

  /// Takes the bytes if fewer than `capacity` wait. After `full`, `onRoom` is called when it is worth offering again.
  func offer(_ bytes: UnsafeRawBufferPointer) -> Offer {
    let (offer, consumer) = state.withLock { state -> (Offer, CheckedContinuation<Void, Never>?) in
      guard state.end == nil else { return (.closed, nil) }
      guard state.buffer.count < capacity else {
        state.producerWaits = true
        return (.full, nil)
      }
      state.buffer.append(contentsOf: bytes)
      return (.taken, state.consumer.take())
    }
    consumer?.resume()
    return offer
  }

  /// Ends the stream; the consumer still gets what waits. Later ends are ignored.
  func finish(_ failure: EngineFailure? = nil) {
    let consumer = state.withLock { state in
      if state.end == nil { state.end = failure.map { .failed($0) } ?? .finished }
      return state.consumer.take()
    }
    consumer?.resume()
  }

  // MARK: Consumer

  /// The bytes that have arrived, at least one; nil at the end. Cancellation of the task abandons the stream.
  func next() async throws(EngineFailure) -> [UInt8]? {
    while true {
      if let arrived = try poll() { return arrived.isEmpty ? nil : arrived }
      await withTaskCancellationHandler {
        await withCheckedContinuation { continuation in
          let goOn = state.withLock { state in
            guard state.buffer.isEmpty, state.end == nil else { return true }
            state.consumer = continuation
            return false
          }
          if goOn { continuation.resume() }
        }
      } onCancel: {
        abandon()
      }
    }
  }

  /// What waits; empty at the end; nil when there is nothing yet.
  private func poll() throws(EngineFailure) -> [UInt8]? {
    if Task.isCancelled { abandon() }
    let (bytes, end, wake) = state.withLock { state -> ([UInt8], End?, Bool) in
      let bytes = state.buffer
      state.buffer = []
      let wake = state.producerWaits && !bytes.isEmpty
      if wake { state.producerWaits = false }
      return (bytes, state.end, wake)
    }
    if wake { onRoom() }
    if !bytes.isEmpty { return bytes }
    switch end {
    case .failed(let failure): throw failure
    case .finished: return []
    case nil: return nil
    }
  }

  /// Whether `abandon` was called.
  var isAbandoned: Bool { state.withLock { $0.abandoned } }

  /// The consumer wants no more: what waits is dropped and the transfer ends. Safe to repeat.
  func abandon() {
    let (consumer, ended) = state.withLock { state in
      let open = state.end == nil
      if open { state.end = .failed(.cancelled) }
      state.abandoned = true
      state.buffer = []
      return (state.consumer.take(), open)
    }
    consumer?.resume()
    if ended { onAbandon() }
  }
}
