internal import Glibc
internal import Linux

/// An instance that is not root's: what the host has to have given its user.
package enum OrdinaryUser {
  /// Whether this instance is one's.
  package static var isOurs: Bool { getuid() != 0 }

  /// Something the host lacks, in words for the user, and what to do about it.
  package struct Lack: Sendable, Equatable {
    package var what: String
    package var fix: String
    package init(what: String, fix: String) {
      self.what = what
      self.fix = fix
    }
  }

  /// What keeps every native app from running here; nil: nothing.
  package static func lack(_ hierarchy: CgroupHierarchy) -> Lack? {
    let asRoot =
      "as root: `apt install uidmap`, and `usermod --add-subuids 200000-265535 --add-subgids 200000-265535 USER`"
    for (file, range) in [("/etc/subuid", SubordinateIDs.own()), ("/etc/subgid", SubordinateIDs.ownGroups())] {
      guard let range else { return Lack(what: "\(file) gives your user no ids for apps", fix: asRoot) }
      guard range.count >= 65_536 else {
        return Lack(what: "\(file) gives your user \(range.count) ids, and apps need 65536", fix: asRoot)
      }
    }
    guard SubordinateIDs.own()?.first == SubordinateIDs.ownGroups()?.first else {
      return Lack(
        what:
          "/etc/subuid and /etc/subgid give your user ids that begin differently, and an app's uid and gid are one number",
        fix: "as root: give both the same range")
    }
    for program in [SubordinateIDs.programs.users, SubordinateIDs.programs.groups] where !Place.isProgram(program) {
      return Lack(what: "\(program) is not there, which gives apps ids of their own", fix: asRoot)
    }
    guard hierarchy.layout == .unified, !hierarchy.base.isEmpty else {
      return Lack(
        what: "no cgroups are delegated to your user: that takes cgroup v2 alone, and your user's systemd",
        fix:
          "boot with systemd.unified_cgroup_hierarchy=1, and log in through systemd (libpam-systemd, dbus-user-session)"
      )
    }
    return nil
  }

  /// A process is moved between groups only by who may write to what lies above both.
  package static func lackOfPlace(_ hierarchy: CgroupHierarchy) -> Lack? {
    // best effort: what cannot be read is no place of ours.
    let own = (try? File.text("/proc/self/cgroup"))?.split(separator: "\n").first { $0.hasPrefix("0::") } ?? ""
    guard !own.dropFirst(3).hasPrefix("\(hierarchy.base)/") else { return nil }
    return Lack(
      what:
        "this daemon was not started by your user's systemd, so it cannot put anything into the groups delegated to you",
      fix: "let that start it: `supervisor enable --now`")
  }
}
