import Foundation
import Model
import Testing

@testable import FileSystems

@Suite("Devices of this host") struct DeviceTests {
  private static let app = AppID(stored: "a") ?? { fatalError("a is an id") }()

  private func problem(_ path: String) -> DeviceProblem? {
    var policy = Policy(id: Self.app, stack: "s", runtime: .native, baseFolder: "/")
    policy.devices = [DeviceGrant(source: path, target: "/dev/x", access: "rw")]
    do throws(DeviceProblem) {
      try DeviceDelivery.check(policy)
      return nil
    } catch { return error }
  }

  @Test("what gives an app the host is refused by what it is, whatever it is called")
  func forbidden() throws {
    for path in [
      "/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/null", "/dev/tty0", "/dev/ptmx", "/dev/net/tun",
    ]
    where FileManager.default.fileExists(atPath: path) {
      guard case .forbidden? = problem(path) else {
        Issue.record("\(path): \(String(describing: problem(path)))")
        continue
      }
    }
    #expect(problem("/dev/no-such-device") == .missing("/dev/no-such-device"))
    #expect(problem("/dev/shm") == .notADevice("/dev/shm"))
    if FileManager.default.fileExists(atPath: "/dev/loop0") { #expect(problem("/dev/loop0") == .disk("/dev/loop0")) }
    for (major, minor) in [(1, 1), (1, 11), (10, 232), (10, 229), (21, 0), (7, 3), (5, 1)] as [(UInt64, UInt64)] {
      #expect(DeviceDelivery.reason(against: major, minor) != nil, "\(major):\(minor)")
    }
    #expect(DeviceDelivery.reason(against: 188, 0) == nil)
  }

  @Test("a node of another name is judged by its number", .enabled(if: getuid() == 0))
  func renamed() throws {
    let path = "/var/tmp/appsup-node-\(UInt32.random(in: 0 ... .max))"
    try #require(mknod(path, S_IFCHR | 0o600, dev_t(1 << 8 | 11)) == 0)
    defer { unlink(path) }
    guard case .forbidden? = problem(path) else {
      Issue.record("kmsg by another name")
      return
    }
  }
}
