internal import Glibc
internal import Linux

/// Accepts on the host's side, connects on the app's, and moves bytes both ways through pipes, so that none of them passes
/// through this process's memory.
final class Relay {
  /// More connections wait in the backlog.
  private static let maximumConnections = 256
  private static let most = 1 << 16

  /// One direction of a connection.
  private struct Flow {
    let from: Int32
    let to: Int32
    let reading: Int32
    let writing: Int32
    var held = 0
    var sawEnd = false
    var isDone = false
  }

  private final class Connection {
    var flows: [Flow]
    let descriptors: [Int32]
    var isConnected = false
    let inner: Int32
    init(_ outer: Int32, _ inner: Int32, _ pipes: [Int32]) {
      self.inner = inner
      descriptors = [outer, inner] + pipes
      flows = [
        Flow(from: outer, to: inner, reading: pipes[0], writing: pipes[1]),
        Flow(from: inner, to: outer, reading: pipes[2], writing: pipes[3]),
      ]
    }
  }

  private var readiness: Readiness
  private let targets: [Int32: UInt16]
  private var connections: [Int32: Connection] = [:]
  private var count = 0
  private var isAccepting = true
  /// Had more to move when its turn was over.
  private var unfinished: [Connection] = []

  init(_ listeners: [(Int32, UInt16)]) throws(SystemFault) {
    readiness = try Readiness()
    targets = Dictionary(listeners.map { ($0.0, $0.1) }) { first, _ in first }
    for (raw, _) in listeners { try readiness.add(raw) }
  }

  func run() -> Never {
    while let ready = try? readiness.wait(block: unfinished.isEmpty) {
      let again = unfinished
      unfinished = []
      for connection in again { serve(connection) }
      for raw in ready {
        if let target = targets[raw] {
          accept(raw, target)
        } else if let connection = connections[raw] {
          serve(connection)
        }
      }
    }
    Children.exitNow(1)
  }

  // MARK: Connections

  private func accept(_ listener: Int32, _ target: UInt16) {
    let outer: Int32
    do throws(SystemFault) {
      guard let arrived = try UnixSocket.accept(listener) else { return }
      outer = arrived.release()
    } catch {
      // Out of descriptors: the rest waits in the backlog until a connection ends, instead of being reported for ever.
      if count > 0 { setAccepting(false) }
      return
    }
    guard let connection = connect(outer, target) else {
      close(outer)
      return
    }
    connections[outer] = connection
    connections[connection.inner] = connection
    count += 1
    do throws(SystemFault) {
      try readiness.addEdges(outer)
      try readiness.addEdges(connection.inner)
    } catch { return end(connection) }
    setAccepting(count < Self.maximumConnections)
  }

  private func connect(_ outer: Int32, _ target: UInt16) -> Connection? {
    do throws(SystemFault) {
      let inner = try TCP.connectLoopback(target)
      var first = try Pipe(nonBlockingRead: true)
      var second = try Pipe(nonBlockingRead: true)
      guard let a = first.reading.take(), let b = first.writing.take(), let c = second.reading.take(),
        let d = second.writing.take()
      else { return nil }
      return Connection(outer, inner.release(), [a.release(), b.release(), c.release(), d.release()])
    } catch { return nil }
  }

  private func setAccepting(_ accepting: Bool) {
    guard accepting != isAccepting else { return }
    isAccepting = accepting
    // Best effort: at worst one more is accepted, and let go for want of descriptors.
    for raw in targets.keys { try? readiness.setReported(raw, accepting) }
  }

  private func end(_ connection: Connection) {
    guard connections[connection.inner] === connection else { return }
    connections[connection.descriptors[0]] = nil
    connections[connection.inner] = nil
    unfinished.removeAll { $0 === connection }
    for raw in connection.descriptors { close(raw) }
    count -= 1
    setAccepting(count < Self.maximumConnections)
  }

  // MARK: Bytes

  private func serve(_ connection: Connection) {
    guard connections[connection.inner] === connection else { return }
    if !connection.isConnected {
      guard TCP.pendingError(connection.inner) == 0 else { return end(connection) }
    }
    do throws(SystemFault) {
      var moved = true
      var rounds = 0
      while moved {
        guard rounds < 16 else {
          unfinished.append(connection)
          return
        }
        rounds += 1
        moved = false
        for index in 0..<2 where try move(&connection.flows[index]) { moved = true }
      }
    } catch  where error.code == ENOTCONN {
      // Still on its way: the next event tells.
      return
    } catch { return end(connection) }
    if connection.flows.allSatisfy(\.isDone) { end(connection) }
  }

  /// Moves what can be moved one way; whether anything was.
  private func move(_ flow: inout Flow) throws(SystemFault) -> Bool {
    var progress = false
    if !flow.sawEnd, flow.held < Self.most {
      if let got = try Pipe.splice(flow.from, flow.writing, Self.most - flow.held) {
        flow.held += got
        flow.sawEnd = got == 0
        progress = true
      }
    }
    if flow.held > 0, let sent = try Pipe.splice(flow.reading, flow.to, flow.held) {
      flow.held -= sent
      progress = progress || sent > 0
    }
    if flow.sawEnd, flow.held == 0, !flow.isDone {
      TCP.finishWriting(flow.to)
      flow.isDone = true
      progress = true
    }
    return progress
  }
}
