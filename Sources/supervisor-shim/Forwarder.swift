internal import Glibc
internal import Linux
internal import Sandboxing

/// The host's side of published ports: taken in the host's network namespace, before the app is.
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

enum Forwarder {
  static func start(_ plan: LaunchPlan, _ listeners: [Ports.Listener], _ child: RunningChild) throws(StepFailure)
    -> Int32
  {
    throw StepFailure("ports", reason: "published ports of native apps are not supported yet", code: ENOSYS)
  }
  static func stop(_ pid: Int32) {}
}
