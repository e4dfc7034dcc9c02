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

  private let bytes: ByteStream
  private let decoder: Decoder

  init(_ bytes: ByteStream, _ decoder: Decoder) {
    self.bytes = bytes
    self.decoder = decoder
  }

  /// Ends the transfer from outside the reading task, which then gets `cancelled`.
  package func cancel() { bytes.cancel() }

  package struct Iterator: AsyncIteratorProtocol {
    private var bytes: ByteStream.Iterator
    private var decoder: Decoder
    private var ended = false

    fileprivate init(_ bytes: ByteStream.Iterator, _ decoder: Decoder) {
      self.bytes = bytes
      self.decoder = decoder
    }

    package mutating func next() async throws(EngineFailure) -> Element? {
      while !ended {
        if let element = try decoder.next() { return element }
        guard let more = try await bytes.next() else {
          ended = true
          return try decoder.end()
        }
        decoder.take(more)
      }
      return nil
    }

    package mutating func next(isolation actor: isolated (any Actor)?) async throws(EngineFailure) -> Element? {
      while !ended {
        if let element = try decoder.next() { return element }
        guard let more = try await bytes.next(isolation: actor) else {
          ended = true
          return try decoder.end()
        }
        decoder.take(more)
      }
      return nil
    }
  }

  package func makeAsyncIterator() -> Iterator { Iterator(bytes.makeAsyncIterator(), decoder) }
}
