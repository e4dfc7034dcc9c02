// Seccomp: a system call filter as the kernel's own program.
//
// Owns:   libseccomp, which turns the one list of calls into classic BPF (seccomp(2), libseccomp 2.5).
// Never:  decides what is allowed (Sandboxing/SeccompTable.swift), loads anything.
// Next:   ProcessHosting puts the program into a launch plan; the shim loads it last.
internal import CSeccomp
internal import Glibc
internal import Linux
package import Sandboxing

/// Why a list of calls did not become a program; a fault of this build, or of the library found here.
package struct FilterFault: Error, Sendable, CustomStringConvertible {
  package var description: String
}

/// Compiles profiles.
package enum FilterProgram {
  /// The program as an array of `struct sock_filter`. What the profile does not name gets EPERM, a number newer than the newest
  /// known ENOSYS, and a call of another architecture (int 0x80, x32) kills the process.
  package static func compile(_ profile: SeccompProfile) throws(FilterFault) -> [UInt8] {
    guard profile.architecture == .current else {
      throw FilterFault(description: "a filter for \(profile.architecture.rawValue) cannot be made here")
    }
    guard let context = seccomp_init(Action.errno(EPERM)) else {
      throw FilterFault(description: "libseccomp gave no filter")
    }
    defer { seccomp_release(context) }
    try check("bad architecture", seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, Action.killProcess))
    // A tree instead of a chain: the last call of the list costs no more than the first.
    try check("optimisation", seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2))
    for rule in profile.rules {
      let arguments = rule.arguments.map(Self.comparison)
      let action = action(rule.action)
      for name in rule.names {
        guard let number = number(of: name) else { continue }
        let outcome = seccomp_rule_add_array(context, action, number, UInt32(arguments.count), arguments)
        // EEXIST: a capability opens again what is open already.
        if outcome != -EEXIST { try check(name, outcome) }
      }
    }
    return unknown + (try export(context))
  }

  private enum Action {
    static let allow: UInt32 = 0x7fff_0000
    static let killProcess: UInt32 = 0x8000_0000
    static func errno(_ code: Int32) -> UInt32 { 0x0005_0000 | UInt32(code) & 0xffff }
  }

  private static func action(_ action: SeccompProfile.Action) -> UInt32 {
    switch action {
    case .allow: Action.allow
    case .errno(let code): Action.errno(Int32(code))
    }
  }

  private static func comparison(_ argument: SeccompProfile.Argument) -> scmp_arg_cmp {
    switch argument.comparison {
    case .equal(let value):
      scmp_arg_cmp(arg: UInt32(argument.index), op: SCMP_CMP_EQ, datum_a: value, datum_b: 0)
    case .masked(let mask, let value):
      scmp_arg_cmp(arg: UInt32(argument.index), op: SCMP_CMP_MASKED_EQ, datum_a: mask, datum_b: value)
    }
  }

  /// The library is older than the kernel: it does not know the newest names, whose numbers are the same everywhere. Nil: this
  /// architecture has no such call.
  static func number(of name: String) -> Int32? { SeccompProfile.newNumbers[name] ?? numberInLibrary(of: name) }

  static func numberInLibrary(of name: String) -> Int32? {
    let number = seccomp_syscall_resolve_name(name)
    return number >= 0 ? number : nil
  }

  /// Goes before the library's program, which would answer EPERM: C libraries fall back to an older call only on ENOSYS. Numbers
  /// with bit 30 are x32's, and are left to the library to kill.
  private static var unknown: [UInt8] {
    let newest = UInt32(SeccompProfile.newestNumber)
    let program: [(code: UInt16, whenTrue: UInt8, whenFalse: UInt8, value: UInt32)] = [
      (0x20, 0, 0, 4),  // load the architecture (struct seccomp_data)
      (0x15, 0, 4, seccomp_arch_native()),  // another one: to the library's program
      (0x20, 0, 0, 0),  // load the number
      (0x35, 2, 0, 0x4000_0000),  // x32: to the library's program
      (0x25, 0, 1, newest),  // known: to the library's program
      (0x06, 0, 0, Action.errno(ENOSYS)),
    ]
    return program.flatMap { step in
      withUnsafeBytes(of: step.code) { Array($0) } + [step.whenTrue, step.whenFalse]
        + withUnsafeBytes(of: step.value) { Array($0) }
    }
  }

  private static func export(_ context: scmp_filter_ctx) throws(FilterFault) -> [UInt8] {
    do throws(SystemFault) {
      var pipe = try Pipe(size: 1 << 20, nonBlockingRead: false)
      guard let reading = pipe.reading.take(), let writing = pipe.writing.take() else { return [] }
      let outcome = writing.withRaw { seccomp_export_bpf(context, $0) }
      // Its end is the end of what is read.
      _ = consume writing
      guard outcome == 0 else { throw SystemFault(call: "seccomp_export_bpf", subject: "", code: -outcome) }
      return try readAll(reading, "filter", limit: 1 << 20)
    } catch { throw FilterFault(description: "the filter cannot be exported: \(error)") }
  }

  private static func check(_ what: String, _ outcome: Int32) throws(FilterFault) {
    guard outcome < 0 else { return }
    throw FilterFault(description: "libseccomp refused \(what): \(SystemFault.text(of: -outcome))")
  }
}
