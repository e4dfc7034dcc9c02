internal import Glibc
internal import Linux
package import Model

/// Why a device cannot be given to its app; the text is for the user.
package enum DeviceProblem: Error, Sendable, Equatable, CustomStringConvertible {
  case missing(String)
  case notADevice(String)
  case disk(String)
  case forbidden(String, because: String)
  case notDelivered(reason: String)

  package var description: String {
    switch self {
    case .missing(let path): "the device \(path) is not there: plug it in, or remove it from devices"
    case .notADevice(let path): "\(path) is not a character device"
    case .disk(let path): "\(path) is a disk, which no app is given: use a folder on it"
    case .forbidden(let path, let because): "\(path) is never given to an app: \(because)"
    case .notDelivered(let reason): "the devices could not be made for the app: \(reason)"
    }
  }
}

/// How one start of an app gets its devices: nodes of the app's own, with the number of what really lies at each path, in memory that is
/// mounted below `run/devices` of the instance just as long as it takes to be bound into the app. Who may use the host's own node does
/// not matter, and what its path leads to afterwards neither.
package struct DeviceDelivery: Sendable {
  private let devices: [DeviceGrant]
  private let owner: (uid: UInt32, gid: UInt32)
  package let folder: String

  /// `uidBase` is the first of the app's ids as its runtime counts.
  package init(_ layout: InstanceLayout, _ policy: Policy, _ runtime: Runtime, run: String, uidBase: UInt32) {
    devices = policy.devices
    owner = policy.ownerOutside(uidBase: uidBase)
    folder = Self.place(layout, runtime, run)
  }

  private static func place(_ layout: InstanceLayout, _ runtime: Runtime, _ run: String) -> String {
    "\(layout.run)/devices/\(runtime)/\(run)"
  }

  /// Where the node of each device is made visible, in the policy's order.
  package func node(_ index: Int) -> String { "\(folder)/\(index)" }

  /// Looks at every device of a policy.
  package static func check(_ policy: Policy) throws(DeviceProblem) {
    for device in policy.devices { _ = try number(device.source) }
    guard !policy.devices.isEmpty, geteuid() != 0 else { return }
    throw .notDelivered(reason: "this instance is an ordinary user's, and devices are root's to give")
  }

  /// Mounts the nodes at `folder`, in place of what an earlier try left there; returns what the devices controller is to allow, as
  /// `c 188:0 rw` (devices.rst).
  package func deliver() throws(DeviceProblem) -> [String] {
    guard !devices.isEmpty else { return [] }
    var rules: [String] = []
    do throws(DeviceProblem) {
      takeBack()
      let numbers = try devices.map { (device) throws(DeviceProblem) in try Self.number(device.source) }
      do throws(SystemFault) {
        let memory = try DetachedMount(
          new: "tmpfs", [("size", "64k"), ("nr_inodes", String(devices.count + 8)), ("mode", "755")],
          [.noSetuid, .noExecution])
        for (index, device) in devices.enumerated() {
          let mode: UInt32 = device.access == "r" ? 0o400 : device.access == "w" ? 0o200 : 0o600
          let number = numbers[index]
          try memory.withRaw { (root) throws(SystemFault) in
            try Place.makeDevice(
              String(index), in: root, number: number, uid: owner.uid, gid: owner.gid, mode: mode)
          }
          rules.append("c \(Self.major(number)):\(Self.minor(number)) \(device.access)")
        }
        try memory.seal(nil, folder)
        try MountTable.hang(memory, at: folder)
      } catch { throw .notDelivered(reason: error.description) }
    } catch {
      takeBack()
      throw error
    }
    return rules
  }

  /// Whether the nodes are there for a runtime to take.
  package var isVisible: Bool { MountTable.isMounted(folder) }

  /// Takes the nodes away from the host's view; an app that was started keeps its own. Safe to repeat.
  package func takeBack() { MountTable.unpin(folder) }

  /// The same where no more is known of it than its name.
  package static func takeBack(_ layout: InstanceLayout, _ runtime: Runtime, run: String) {
    MountTable.unpin(place(layout, runtime, run))
  }

  /// Takes back what earlier daemons left, but for the runs named.
  package static func sweep(_ layout: InstanceLayout, _ runtime: Runtime, keeping runs: Set<String>) {
    // best effort: there is none, or nothing was delivered.
    guard let names = try? Folder(opening: "\(layout.run)/devices/\(runtime)").names() else { return }
    for name in names where !runs.contains(name) { MountTable.unpin(place(layout, runtime, name)) }
  }

  // MARK: What a path really is

  private static func major(_ number: UInt64) -> UInt64 { (number >> 8 & 0xFFF) | (number >> 32 & 0xFFFF_F000) }
  private static func minor(_ number: UInt64) -> UInt64 { (number & 0xFF) | (number >> 12 & 0xFFFF_FF00) }

  /// The number of the device that a path leads to, by the descriptor it was opened as. Links are followed: udev names devices by them,
  /// and only root can make any below /dev.
  private static func number(_ path: String) throws(DeviceProblem) -> UInt64 {
    var status = stat()
    do throws(SystemFault) {
      let place = try Place.open(path, [.noMagicLinks])
      try place.withRaw { (raw) throws(SystemFault) in _ = try Linux.check("fstat", path) { fstat(raw, &status) } }
    } catch {
      switch error.code {
      case ENOENT, ENOTDIR, ENXIO: throw .missing(path)
      default: throw .forbidden(path, because: error.reason)
      }
    }
    switch status.st_mode & S_IFMT {
    case S_IFCHR: break
    case S_IFBLK: throw .disk(path)
    default: throw .notADevice(path)
    }
    let number = UInt64(status.st_rdev)
    if let reason = Self.reason(against: major(number), minor(number)) { throw .forbidden(path, because: reason) }
    return number
  }

  /// Why a device is nobody's to have (Documentation/admin-guide/devices.txt); nil: it may be given. What has no fixed number is known by
  /// the kernel's own class of it.
  static func reason(against major: UInt64, _ minor: UInt64) -> String? {
    switch (major, minor) {
    case (1, _): return "memory, ports and the kernel's log are the host's"
    case (4, 0...63), (5, 0...1), (7, _): return "it is a console of the host"
    case (5, 2), (136...143, _): return "terminals are made for each app"
    case (21, _), (90, _), (162, _): return "it is a disk by another name"
    case (202, _), (203, _): return "it is the processor's own"
    case (10, let minor):
      guard let what = miscellaneous[minor] else { break }
      return what
    default: break
    }
    // best effort: a number the kernel does not know leads nowhere.
    guard let link = try? Place.link("/sys/dev/char/\(major):\(minor)/subsystem"),
      let name = link.split(separator: "/").last, let what = classes[String(name)]
    else { return nil }
    return what
  }

  private static let miscellaneous: [UInt64: String] = [
    144: "it is the machine's memory of settings", 196: "it gives devices past the kernel",
    200: "it makes network interfaces",
    223: "it types and clicks for the host's users", 224: "it is the machine's keys",
    229: "it mounts file systems", 232: "it runs machines with the kernel's rights",
    234: "it is a disk by another name", 235: "it mounts file systems", 236: "it is a disk by another name",
    237: "it is a disk by another name", 238: "it runs in the kernel", 239: "it types and clicks for the host's users",
    241: "it runs in the kernel",
  ]

  private static let classes: [String: String] = [
    "mem": "memory, ports and the kernel's log are the host's", "block": "it is a disk by another name",
    "bsg": "it is a disk by another name", "scsi_generic": "it is a disk by another name",
    "nvme": "it is a disk by another name", "nvme-generic": "it is a disk by another name",
    "nvme-subsystem": "it is a disk by another name", "mtd": "it is a disk by another name",
    "ubi": "it is a disk by another name", "raw": "it is a disk by another name", "vc": "it is a console of the host",
    "vtconsole": "it is a console of the host", "vfio": "it gives devices past the kernel",
    "iommu": "it gives devices past the kernel", "msr": "it is the processor's own",
    "cpuid": "it is the processor's own",
    "tpm": "it is the machine's keys", "tpmrm": "it is the machine's keys", "watchdog": "it restarts the machine",
  ]
}

extension Policy {
  /// Who the app is to the host: ids of its own block, where it has one, or those it was given.
  func ownerOutside(uidBase: UInt32) -> (uid: UInt32, gid: UInt32) {
    switch user {
    case .auto: (uidBase + 1000, uidBase + 1000)
    case .image: (0, 0)
    case .given(let uid, let gid):
      runtime == .container || preset == .privileged ? (uid, gid) : (uidBase &+ uid, uidBase &+ gid)
    }
  }
}
