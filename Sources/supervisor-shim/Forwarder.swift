internal import Glibc
internal import Linux
internal import Sandboxing

/// The host's side of published ports: taken in the host's network namespace, before anything of the app exists.
enum Ports {
  struct Listener {
    var socket: SharedDescriptor
    var taken: UInt16
    var inside: UInt16
  }

  static func listen(_ ports: [LaunchPlan.Port]) throws(StepFailure) -> [Listener] {
    var listeners: [Listener] = []
    for port in ports {
      var taken = port.outside
      do throws(SystemFault) {
        let socket = SharedDescriptor(try TCP.listen(port.address, &taken))
        listeners.append(Listener(socket: socket, taken: taken, inside: port.inside))
      } catch  where error.code == EADDRINUSE {
        throw StepFailure("ports", reason: "port \(port.outside) on \(port.address) is in use", code: EADDRINUSE)
      } catch {
        throw StepFailure("ports", error)
      }
    }
    return listeners
  }
}

/// A process that carries connections from the host's ports to the app's. It is charged to the app and ends with it; all it has
/// are the listening sockets of the host and a view of nothing but the app's own namespaces. One that ends before the app is
/// made anew; the ports stay taken meanwhile, and who connects waits.
final class Forwarder {
  private let plan: LaunchPlan
  private let listeners: [Ports.Listener]
  /// Its number, ours until it is waited for.
  private(set) var running: Int32?
  private var process: Pidfd?
  /// Monotonic clock: when to try again.
  private(set) var due: Int64?
  private var lastStart: Int64 = 0

  init(_ plan: LaunchPlan, _ listeners: [Ports.Listener]) {
    self.plan = plan
    self.listeners = listeners
  }

  /// Lends its pidfd, while there is one.
  func withProcess(_ body: (Int32) -> Void) { process?.withRaw(body) }

  /// It ended before its app: killed, or out of the app's memory. Tried again once a second at most, so that one that cannot live
  /// costs next to nothing.
  func ended() {
    stop()
    due = max(Clock.monotonic(), lastStart + 1_000_000_000)
  }

  func revive(_ child: RunningChild) {
    guard let due, Clock.monotonic() >= due else { return }
    do throws(StepFailure) { try start(child) } catch { self.due = lastStart + 1_000_000_000 }
  }

  func stop() {
    due = nil
    process = nil
    if let running { Self.end(running) }
    running = nil
  }

  /// Forks it, and returns once it has given everything up that it does not need.
  func start(_ child: RunningChild) throws(StepFailure) {
    lastStart = Clock.monotonic()
    due = nil
    var pair = try step("ports") { () throws(SystemFault) in try PacketPair() }
    guard let ours = pair.parent.take(), let theirs = pair.child.take() else {
      throw StepFailure("ports", reason: "made without ends", code: EBADF)
    }
    let told = SharedDescriptor(ours)
    let telling = SharedDescriptor(theirs)
    let pid = try step("ports") { () throws(SystemFault) in try Namespaces.fork() }
    guard pid > 0 else { Self.become(plan, listeners, child, telling) }
    // Our copy of its end would hide its death.
    _ = consume telling
    _ = consume pair
    let answer = try step("ports") { () throws(SystemFault) in
      try told.withRaw { (raw) throws(SystemFault) in try PacketPair.receive(raw).bytes }
    }
    guard answer.first == ChildPacket.ready else {
      Self.end(pid)
      throw answer.isEmpty ? StepFailure("ports", reason: "the forwarder ended") : ChildPacket.failure(answer)
    }
    running = pid
    process = try step("ports") { () throws(SystemFault) in try Pidfd(of: pid) }
  }

  private static func end(_ pid: Int32) {
    // Our child and not waited for yet: the number is its own. Best effort: it may have ended with the app's group.
    kill(pid, SIGKILL)
    _ = try? Children.wait(pid, block: true)
  }

  private static func become(
    _ plan: LaunchPlan, _ listeners: [Ports.Listener], _ child: RunningChild, _ telling: SharedDescriptor
  ) -> Never {
    let targets = listeners.map(\.inside)
    do throws(StepFailure) {
      try confine(plan, child)
      try step("ports") { () throws(SystemFault) in
        // Nothing stays open but the listening sockets, from 4 on, and the way to say that all went well, 3.
        try moveDescriptors(listeners, telling)
      }
    } catch {
      telling.withRaw { raw in try? PacketPair.send(raw, ChildPacket.bytes(error)) }
      Children.exitNow(1)
    }
    guard (try? PacketPair.send(3, [ChildPacket.ready])) != nil else { Children.exitNow(1) }
    close(3)
    guard let relay = try? Relay(targets.enumerated().map { (4 + Int32($0.offset), $0.element) }) else {
      Children.exitNow(1)
    }
    relay.run()
  }

  private static func confine(_ plan: LaunchPlan, _ child: RunningChild) throws(StepFailure) {
    let identity = plan.identity
    try step("ports") { () throws(SystemFault) in
      for file in plan.membership.files { try File.write(file, "0") }
      if let folder = plan.membership.folder { try File.write("\(folder)/cgroup.procs", "0") }
      // All at once: entering the user namespace alone would take the right to enter the others, which it owns.
      try Namespaces.enter(child.process, identity.namespaces.intersection([.user, .mount, .network, .ipc, .uts]))
      let isolated = identity.namespaces.contains(.user)
      try Privileges.lockSecurebits(ambient: false)
      try Privileges.bound(keep: 0)
      try Privileges.become(uid: isolated ? 0 : 65_534, gid: isolated ? 0 : 65_534, groups: [])
      try Privileges.setCapabilities(0, ambient: false)
      try Privileges.setNoNewPrivileges()
      try Privileges.setNotDumpable()
      try Privileges.limit(4, soft: 0, hard: 0)
    }
  }

  private static func moveDescriptors(_ listeners: [Ports.Listener], _ telling: SharedDescriptor) throws(SystemFault) {
    let all = [telling] + listeners.map(\.socket)
    // First out of the way of all targets, then into place.
    var moved: [Int32] = []
    for descriptor in all {
      moved.append(
        try descriptor.withRaw { (raw) throws(SystemFault) in
          try check("fcntl", "F_DUPFD") { fcntl(raw, F_DUPFD, Int32(64 + all.count)) }
        })
    }
    for (index, raw) in moved.enumerated() {
      _ = try check("dup2") { dup2(raw, Int32(3 + index)) }
    }
    try Privileges.close(from: UInt32(3 + all.count))
  }
}
