internal import Linux
internal import Model

/// What arrives whole: calls, batches, cancellations; and their answers.
extension RPCServer {
  func take(_ frame: ArraySlice<UInt8>, _ id: UInt64, _ connection: Connection) {
    let passed = takePassed(connection)
    do throws(JSONSyntaxError) {
      let value = try JSONValue(parsing: frame)
      if let batch = value.arrayValue {
        guard !batch.isEmpty, batch.count <= Self.inFlight else {
          refuse(id, connection, RPCFailure(.invalidRequest, "a batch has 1 to \(Self.inFlight) requests"))
          return
        }
        runBatch(
          batch, passed, id, connection, PeerUse(calls: batch.count, bytes: frame.count, descriptors: passed.count))
      } else {
        run(value, passed, id, connection, PeerUse(calls: 1, bytes: frame.count, descriptors: passed.count))
      }
    } catch {
      refuse(id, connection, RPCFailure(.parse, error.description))
    }
  }

  private func run(
    _ value: JSONValue, _ passed: [SharedDescriptor], _ id: UInt64, _ connection: Connection, _ use: PeerUse
  ) {
    switch IncomingCall.read(value) {
    case .failure(let rejected): write(Outgoing.failure(rejected.id, rejected.failure), id)
    case .success(let incoming) where incoming.method == "$/cancel":
      if let target = incoming.parameters["id"].flatMap({ RPCID($0) }) { connection.tasks[target]?.cancel() }
    case .success(let incoming):
      if let request = incoming.id, connection.tasks[request] != nil {
        write(Outgoing.failure(request, RPCFailure(.invalidRequest, "this id is already in use")), id)
        return
      }
      switch begin(makeCall(incoming, passed, 1, id, connection)) {
      case .answered(let answer): if let answer { write(answer, id) }
      case .later(let call, let body):
        let user = connection.quotaUser
        connection.running += 1
        charge(user, use)
        let number = nextStream
        nextStream += 1
        // Cancelled by $/cancel or when its connection is dropped.
        let task = Task {
          let answer = await Self.outcome(of: call, body)
          connection.streams[number] = nil
          self.finish(call, answer, id)
          self.credit(user, use)
        }
        if let request = incoming.id { connection.tasks[request] = task } else { connection.streams[number] = task }
      }
    }
  }

  private func runBatch(
    _ batch: [JSONValue], _ passed: [SharedDescriptor], _ id: UInt64, _ connection: Connection, _ use: PeerUse
  ) {
    let begun = batch.map { value in
      switch IncomingCall.read(value) {
      case .failure(let rejected): Begun.answered(Outgoing.failure(rejected.id, rejected.failure))
      case .success(let incoming): begin(makeCall(incoming, passed, batch.count, id, connection))
      }
    }
    guard begun.contains(where: { if case .later = $0 { true } else { false } }) else {
      let answers = begun.compactMap { if case .answered(let answer) = $0 { answer } else { nil } }
      if !answers.isEmpty { write(.array(answers), id) }
      return
    }
    let user = connection.quotaUser
    connection.running += 1
    charge(user, use)
    let number = nextStream
    nextStream += 1
    // Cancelled when its connection is dropped.
    connection.streams[number] = Task {
      var answers: [Answer] = []
      await withTaskGroup(of: (Int, Answer?).self) { group in
        for (place, call) in begun.enumerated() {
          group.addTask {
            switch call {
            case .answered(let answer): return (place, answer.map { Answer($0) })
            case .later(let call, let body): return (place, await Self.outcome(of: call, body))
            }
          }
        }
        var placed: [(Int, Answer)] = []
        for await (place, answer) in group { if let answer { placed.append((place, answer)) } }
        answers = placed.sorted { $0.0 < $1.0 }.map(\.1)
      }
      connection.streams[number] = nil
      self.finishBatch(answers, id)
      self.credit(user, use)
    }
  }

  enum Body: Sendable {
    case plain(@Sendable () async throws(RPCFailure) -> JSONValue)
    case handing(@Sendable () async throws(RPCFailure) -> RPCHanded)
  }

  /// A message, with what is passed beside it.
  struct Answer: Sendable {
    var message: JSONValue
    var descriptor: SharedDescriptor?

    init(_ message: JSONValue, _ descriptor: SharedDescriptor? = nil) {
      self.message = message
      self.descriptor = descriptor
    }

    /// Says in its result which of the frame's descriptors is its own.
    func numbered(_ index: Int) -> JSONValue {
      guard var object = message.objectValue, var result = object["result"]?.objectValue else { return message }
      result["fd"] = .integer(Int64(index))
      object["result"] = .object(result)
      return .object(object)
    }
  }

  enum Begun: Sendable {
    /// Nil: a notification.
    case answered(JSONValue?)
    case later(RPCCall, Body)
  }

  func begin(_ call: RPCCall) -> Begun {
    do throws(RPCFailure) {
      switch try service.begin(call) {
      case .now(let result): return .answered(call.id.map { Outgoing.result($0, result) })
      case .later(let body): return .later(call, .plain(body))
      case .handing(let body): return .later(call, .handing(body))
      case .stream(let result, let body):
        open(body, on: call.connection)
        return .answered(call.id.map { Outgoing.result($0, result) })
      }
    } catch { return .answered(call.id.map { Outgoing.failure($0, error) }) }
  }

  private func makeCall(
    _ incoming: IncomingCall, _ passed: [SharedDescriptor], _ share: Int, _ id: UInt64, _ connection: Connection
  ) -> RPCCall {
    RPCCall(
      peer: connection.peer, method: incoming.method, parameters: incoming.parameters, descriptors: passed,
      share: share, id: incoming.id, connection: id, server: self)
  }

  private static func outcome(of call: RPCCall, _ body: Body) async -> Answer? {
    do throws(RPCFailure) {
      switch body {
      case .plain(let body):
        let result = try await body()
        return call.id.map { Answer(Outgoing.result($0, result)) }
      case .handing(let body):
        let handed = try await body()
        return call.id.map { Answer(Outgoing.result($0, .object(handed.result)), handed.descriptor) }
      }
    } catch {
      return call.id.map { Answer(Outgoing.failure($0, error)) }
    }
  }

  private func finish(_ call: RPCCall, _ answer: Answer?, _ id: UInt64) {
    guard let connection = connections[id] else { return }
    if let request = call.id { connection.tasks[request] = nil }
    finishBatch(answer.map { [$0] } ?? [], id, asList: false)
  }

  private func finishBatch(_ answers: [Answer], _ id: UInt64, asList: Bool = true) {
    guard let connection = connections[id] else { return }
    connection.running -= 1
    var descriptors: [SharedDescriptor] = []
    let messages = answers.map { answer in
      guard let descriptor = answer.descriptor else { return answer.message }
      descriptors.append(descriptor)
      return answer.numbered(descriptors.count - 1)
    }
    if asList, !messages.isEmpty {
      write(.array(messages), id, descriptors)
    } else {
      for message in messages { write(message, id, descriptors) }
    }
    // Nothing to write still ends a connection that only waited for this.
    if connection.closing { flush(id) } else { serve(id, connection) }
  }
}
