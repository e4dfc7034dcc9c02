/// The body of an answer as it arrives, for one reader. The transfer ends when the last copy of this value and its iterator is let go.
struct ByteStream: AsyncSequence, Sendable {
  typealias Element = [UInt8]
  typealias Failure = EngineFailure

  /// Ends the transfer when nobody can read it any more.
  fileprivate final class Owner: Sendable {
    let channel: ByteChannel
    /// The transport must live as long as its streams are read.
    let transport: Transport

    init(_ channel: ByteChannel, _ transport: Transport) {
      self.channel = channel
      self.transport = transport
    }

    deinit { channel.abandon() }
  }

  private let owner: Owner

  init(_ channel: ByteChannel, keeping transport: Transport) { owner = Owner(channel, transport) }

  /// Ends the transfer; the reader gets `cancelled`.
  func cancel() { owner.channel.abandon() }

  /// Whether the reader has given up, also after the end.
  var isCancelled: Bool { owner.channel.isAbandoned }

  struct Iterator: AsyncIteratorProtocol {
    fileprivate let owner: Owner

    mutating func next() async throws(EngineFailure) -> [UInt8]? { try await owner.channel.next() }

    mutating func next(isolation actor: isolated (any Actor)?) async throws(EngineFailure) -> [UInt8]? {
      try await owner.channel.next()
    }
  }

  func makeAsyncIterator() -> Iterator { Iterator(owner: owner) }
}

/// Turns bytes into elements; a value, so that each reader has its own.
package protocol StreamDecoder: Sendable {
  associatedtype Element: Sendable
  /// Takes bytes in, in order.
  mutating func take(_ bytes: [UInt8])
  /// The next whole element; nil: more bytes are needed.
  mutating func next() throws(EngineFailure) -> Element?
  /// Called once at the end of the bytes; throws if something is left that is not whole.
  mutating func end() throws(EngineFailure) -> Element?
}

/// A stream from the Engine, decoded, for one reader.
///
/// Memory is bounded (EngineLimits.buffer and one element): a slow reader makes the Engine wait. Cancelling the reading task, letting go
/// of the stream and its iterator, or `cancel` ends the transfer; nothing is delivered afterwards.
package struct EngineStream<Decoder: StreamDecoder>: AsyncSequence, Sendable {
  package typealias Element = Decoder.Element
  package typealias Failure = EngineFailure

  /// What follows the end of the bytes: more bytes and the decoder to go on with; nil: that was all.
  typealias Sequel = @Sendable (Decoder) async throws(EngineFailure) -> (ByteStream, Decoder)?

  private let bytes: ByteStream
  private let decoder: Decoder
  private let sequel: Sequel?

  init(_ bytes: ByteStream, _ decoder: Decoder, then sequel: Sequel? = nil) {
    self.bytes = bytes
    self.decoder = decoder
    self.sequel = sequel
  }

  /// Ends the transfer from outside the reading task, which then gets `cancelled`.
  package func cancel() { bytes.cancel() }

  package struct Iterator: AsyncIteratorProtocol {
    /// Kept to the end: cancelling it cancels its sequel too.
    private let first: ByteStream
    private var bytes: ByteStream.Iterator
    private var decoder: Decoder
    private let sequel: Sequel?
    private var ended = false

    fileprivate init(_ first: ByteStream, _ decoder: Decoder, _ sequel: Sequel?) {
      self.first = first
      bytes = first.makeAsyncIterator()
      self.decoder = decoder
      self.sequel = sequel
    }

    package mutating func next() async throws(EngineFailure) -> Element? {
      while !ended {
        if let element = try decoder.next() { return element }
        if first.isCancelled { throw .cancelled }
        if let more = try await bytes.next() {
          decoder.take(more)
          continue
        }
        if let rest = try decoder.end() { return rest }
        guard let (bytes, decoder) = try await sequel?(decoder) else {
          ended = true
          return nil
        }
        self.bytes = bytes.makeAsyncIterator()
        self.decoder = decoder
      }
      return nil
    }

    package mutating func next(isolation actor: isolated (any Actor)?) async throws(EngineFailure) -> Element? {
      try await next()
    }
  }

  package func makeAsyncIterator() -> Iterator { Iterator(bytes, decoder, sequel) }
}
