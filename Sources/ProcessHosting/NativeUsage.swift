internal import Cgroups
internal import Linux
package import Model

extension NativeHost {
  /// Off this host's own loop: reading a thousand apps takes a while, in which others start and end.
  package nonisolated func usages(_ instances: [(instance: Instance, pid: Int32)], details: Bool) async
    -> [Instance: Usage]
  {
    await reader.read(
      instances.map { ($0.instance, group($0.instance.app, $0.instance.ownGroup), $0.pid) }, details: details)
  }

  package func processes(_ instance: Instance) async -> [Int32] {
    (try? group(instance.app, instance.ownGroup).processes) ?? []
  }
}

/// Reads groups' files where readers of logs work.
actor UsageReader {
  nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }
  private let loop: EventLoop

  init(on loop: EventLoop) { self.loop = loop }

  func read(_ all: [(Instance, AppCgroup, Int32)], details: Bool) -> [Instance: Usage] {
    var usages: [Instance: Usage] = [:]
    for (instance, group, process) in all where group.exists {
      usages[instance] = details ? group.detailedUsage(network: process) : group.usage()
    }
    return usages
  }
}
