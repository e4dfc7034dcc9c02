internal import CLinux
internal import Glibc

/// What the processes of a v2 cgroup may do with devices: a program in the kernel, bpf(2) with BPF_CGROUP_DEVICE. It goes with the group,
/// and groups below are held by it too.
package enum DeviceFilter {
  /// One character device, or all of a major number.
  package struct Rule: Sendable, Equatable {
    private let major: UInt32
    private let minor: UInt32?
    private let access: String

    /// As the v1 controller takes it, `c 136:* rwm` (devices.rst); nil: it is none for character devices.
    package init?(_ text: String) {
      let words = text.split(separator: " ")
      guard words.count == 3, words[0] == "c" else { return nil }
      let numbers = words[1].split(separator: ":")
      guard numbers.count == 2, let major = UInt32(numbers[0]), major < 1 << 12 else { return nil }
      let minor = UInt32(numbers[1])
      guard numbers[1] == "*" || minor.map({ $0 < 1 << 20 }) == true else { return nil }
      guard words[2].allSatisfy({ "rwm".contains($0) }) else { return nil }
      self.major = major
      self.minor = minor
      access = String(words[2])
    }

    fileprivate var bytes: cl_device_rule {
      let bits = access.reduce(Int32(0)) {
        switch $1 {
        case "r": $0 | Int32(CL_DEVICE_READ)
        case "w": $0 | Int32(CL_DEVICE_WRITE)
        default: $0 | Int32(CL_DEVICE_MKNOD)
        }
      }
      return cl_device_rule(major: Int32(major), minor: minor.map { Int32($0) } ?? -1, access: bits)
    }
  }

  /// From now on nothing in `folder` and below uses a device that no rule names; takes the place of what was set before. EPERM: the
  /// caller is not root, or a group above allows no other program; EINVAL: the kernel has no CONFIG_CGROUP_BPF.
  package static func set(_ folder: String, _ rules: [Rule]) throws(SystemFault) {
    let place = try Folder(opening: folder)
    let entries = rules.map(\.bytes)
    let result = place.withRaw { cl_set_device_filter($0, entries, entries.count) }
    guard result >= 0 else { throw SystemFault(call: "bpf", subject: folder, code: -result) }
  }

  /// Whether `set` was called for this folder itself.
  package static func isSet(_ folder: String) -> Bool {
    guard let place = try? Folder(opening: folder) else { return false }
    return place.withRaw { cl_count_device_filters($0) } > 0
  }
}
