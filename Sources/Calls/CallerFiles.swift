internal import FileSystems
internal import Linux
internal import Model
internal import RPC

/// One process of an app that asked for files: what it sees, and the process itself, to know when that ends.
final class ViewedProcess: Sendable {
  let process: Pidfd
  let view: AppView

  init(_ process: consuming Pidfd, _ view: AppView) {
    self.process = process
    self.view = view
  }
}

/// A thread that looks at the mounts of apps' processes. It has a root of its own, and does nothing else.
struct Viewer: Sendable {
  private let thread: Workers

  init(on loop: EventLoop) {
    thread = Workers(name: "app-views", most: 1, on: loop) { () throws(SystemFault) in try Namespaces.ownRoot() }
  }

  /// ESRCH: it has ended, or is in another cgroup.
  func look(at pid: Int32, in cgroup: String) async throws(SystemFault) -> ViewedProcess {
    try await thread.run(0) { () -> Result<ViewedProcess, SystemFault> in
      do throws(SystemFault) {
        let process = try Pidfd(of: pid, in: cgroup)
        let view = try AppView(of: process)
        return .success(ViewedProcess(process, view))
      } catch { return .failure(error) }
    }.get()
  }

  func stop() { thread.stop() }
}

/// A file that an app has open here, by a number.
struct OpenHandle: Sendable {
  var file: SharedDescriptor
  var path: AppPath
  /// Under which it was opened; it ends with any of them.
  var rights: [Right]
  /// The process that opened it, with which it ends.
  var process: Int32
}

/// What an instance holds of its files.
struct CallerFiles {
  static let mostHandles = 64
  private static let mostRevoked = 1024
  /// Processes whose view of files is kept: each takes some descriptors.
  static let mostProcesses = 16

  /// Where paths begin that do not begin with a slash.
  var folder = AppPath.root
  /// By process, as the daemon numbers it.
  var processes: [Int32: ViewedProcess] = [:]
  /// What it watches, by number.
  var watches: [Int64: Watched] = [:]
  /// Whether a large answer is being made, and who waits for that: one at a time, so that an app that reads none of them costs little.
  var isAnswering = false
  var waiting: [CheckedContinuation<Void, Never>] = []
  private(set) var handles: [Int64: OpenHandle] = [:]
  /// Handles that ended with a right, to say so.
  private var revoked: Set<Int64> = []
  private var next: Int64 = 1

  mutating func add(_ handle: OpenHandle) throws(RPCFailure) -> Int64 {
    guard handles.count < Self.mostHandles else {
      throw RPCFailure(
        .quota, "an app has at most \(Self.mostHandles) handles open",
        data: .object(["limit": .integer(Int64(Self.mostHandles)), "hint": "close one with fs.close"]))
    }
    let number = next
    next += 1
    handles[number] = handle
    return number
  }

  func handle(_ number: Int64) throws(RPCFailure) -> OpenHandle {
    if let handle = handles[number] { return handle }
    if revoked.contains(number) {
      throw RPCFailure(
        .revoked, "the right that handle \(number) was opened under was taken away", hint: "open it anew")
    }
    throw RPCFailure(.notFound, "there is no handle \(number)", hint: "it ends with the process that opened it")
  }

  mutating func close(_ number: Int64) throws(RPCFailure) {
    if revoked.remove(number) != nil { return }
    _ = try handle(number)
    handles[number] = nil
  }

  /// Ends those whose rights are held no more.
  mutating func revoke(by rights: RightSet) {
    for (number, handle) in handles
    where !handle.rights.allSatisfy({ rights.allows($0, handle.path.description) }) {
      handles[number] = nil
      if revoked.count >= Self.mostRevoked { revoked.removeAll() }
      revoked.insert(number)
    }
    for watched in watches.values where !rights.allows(.fileRead, watched.path.description) {
      watched.end(revoked: true)
    }
  }

  /// One whose view can be let go of, and is made again when it asks again; nil: all of them have handles.
  var idleProcess: Int32? {
    let busy = Set(handles.values.map(\.process))
    return processes.keys.first { !busy.contains($0) }
  }

  mutating func leave(_ process: Int32) {
    processes[process] = nil
    handles = handles.filter { $0.value.process != process }
  }
}
