import Model
import Testing

@testable import Sandboxing

@Suite("the system call filter as data")
struct SeccompTests {
  let standard = SeccompProfile(architecture: .x86_64, families: [.unix, .internet])

  @Test("new namespaces are refused, threads and forks are not, and clone3 looks absent")
  func namespaces() {
    #expect(standard.verdict("clone", [0x11]) == .allow)
    #expect(standard.verdict("clone", [0x3D0F00]) == .allow)
    for bit in [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] as [UInt64] {
      #expect(standard.verdict("clone", [bit | 0x11]) == .errno(1))
    }
    #expect(standard.verdict("clone3") == .errno(38))
    #expect(standard.verdict("unshare") == .errno(1))
  }

  @Test("typing into a terminal is refused whatever the upper half of the register says; other requests pass")
  func terminals() {
    for high in [0, 1 << 32, UInt64.max << 32] as [UInt64] {
      #expect(standard.verdict("ioctl", [0, 0x5412 | high]) == .errno(1))
      #expect(standard.verdict("ioctl", [0, 0x541C | high]) == .errno(1))
      for request in [0, 0x5401, 0x5411, 0x5413, 0x541B, 0x541D, 0x8000_5412, 0x8912, 0xFFFF_FFFF] as [UInt64] {
        #expect(standard.verdict("ioctl", [0, request | high]) == .allow)
      }
    }
  }

  @Test("only the families an app is given exist; vsock never does")
  func families() {
    for family in [1, 2, 10] as [UInt64] { #expect(standard.verdict("socket", [family]) == .allow) }
    for family in [0, 3, 16, 17, 38, 40, 44] as [UInt64] {
      #expect(standard.verdict("socket", [family]) == .errno(97))
    }
    #expect(standard.verdict("socket", [40 | 1 << 32]) != .allow)
    let closed = SeccompProfile(families: [.unix])
    #expect(closed.verdict("socket", [2]) == .errno(97))
    #expect(SeccompProfile(families: [.unix], capabilities: ["NET_RAW"]).verdict("socket", [17]) == .allow)
    #expect(standard.verdict("socketpair", [1]) == .allow)
    #expect(standard.verdict("socketpair", [16]) == .errno(1))
  }

  @Test("set-uid files cannot be made in any way; a mode that is not read does not matter")
  func modes() {
    for (call, index) in [("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("mknod", 1), ("creat", 1)] {
      var arguments = [UInt64](repeating: 0, count: 4)
      arguments[index] = 0o755
      #expect(standard.verdict(call, arguments) == .allow)
      for bits in [0o4755, 0o2755, 0o6000] as [UInt64] {
        arguments[index] = bits
        #expect(standard.verdict(call, arguments) == .errno(1))
      }
    }
    #expect(standard.verdict("openat", [0, 0, 0, 0o4755]) == .allow)
    #expect(standard.verdict("openat", [0, 0, 0o100, 0o644]) == .allow)
    #expect(standard.verdict("openat", [0, 0, 0o100, 0o4755]) == .errno(1))
    #expect(standard.verdict("openat", [0, 0, 0o2020_0000, 0o4755]) == .errno(1))
    #expect(standard.verdict("openat2") == .errno(38))
  }

  @Test("what is known for kernel holes is not there, and a capability opens only its own calls")
  func absent() {
    for call in [
      "io_uring_setup", "userfaultfd", "keyctl", "bpf", "perf_event_open", "mount", "vmsplice", "memfd_secret",
      "modify_ldt",
      "name_to_handle_at", "open_by_handle_at", "setns", "kexec_load", "init_module", "chroot", "socketcall", "ipc",
    ] {
      #expect(standard.verdict(call) == .errno(1), "\(call)")
    }
    let chroot = SeccompProfile(families: [.unix], capabilities: ["SYS_CHROOT", "CHOWN"])
    #expect(chroot.verdict("chroot") == .allow)
    #expect(chroot.verdict("mount") == .errno(1))
    #expect(standard.verdict("personality", [0]) == .allow)
    #expect(standard.verdict("personality", [0x40000]) == .errno(1))
  }

  @Test("complements of any set hold for everything else and for nothing in it")
  func complements() {
    for excluded in [[0], [UInt32.max], [1, 2, 10, 16], [0x5412, 0x541C], [5, 5]] as [[UInt32]] {
      let patterns = SeccompProfile.allBut(excluded)
      func holds(_ value: UInt32) -> Bool {
        patterns.contains {
          if case .masked(let mask, let wanted) = $0 { UInt64(value) & mask == wanted } else { false }
        }
      }
      for value in excluded { #expect(!holds(value)) }
      for value in (0...40).map({ UInt32($0) }) + excluded.flatMap({ [$0 ^ 1, $0 ^ 0x8000_0000, $0 ^ 0x100] })
      where !excluded.contains(value) {
        #expect(holds(value))
      }
    }
  }
}
