// Seccomp: a system call filter as the kernel's own program.
//
// Owns:   classic BPF (seccomp(2), Documentation/networking/filter.rst), made from the one list of calls; libseccomp's names.
// Never:  decides what is allowed (Sandboxing/SeccompTable.swift), loads anything.
// Next:   ProcessHosting puts the program into a launch plan; the shim loads it last.
internal import CSeccomp
internal import Glibc
package import Sandboxing

/// Why a list of calls did not become a program; a fault of this build.
package struct FilterFault: Error, Sendable, CustomStringConvertible {
  package var description: String
}

/// Compiles profiles.
///
/// The kernel compiles what is loaded once more, for each process, at a cost by the instruction: about 2 µs each on a machine of
/// 2026. A tree over ranges of numbers that are answered alike has far fewer instructions than libseccomp's tree over single numbers,
/// and an app loads two.
package enum FilterProgram {
  /// The program as an array of `struct sock_filter`. What the profile does not name gets EPERM, a number newer than the newest
  /// known ENOSYS (C libraries fall back to an older call on that alone), and a call of another architecture (int 0x80, x32)
  /// kills the process.
  package static func compile(_ profile: SeccompProfile) throws(FilterFault) -> [UInt8] {
    guard profile.architecture == .current else {
      throw FilterFault(description: "a filter for \(profile.architecture.rawValue) cannot be made here")
    }
    let newest = UInt32(SeccompProfile.newestNumber)
    var code = head(newest)
    code += tree(ranges(answers(profile), through: newest)[...])
    guard code.count <= 4096 else {
      throw FilterFault(description: "the filter has \(code.count) instructions; the kernel takes 4096")
    }
    return code.flatMap(\.bytes)
  }

  /// The number of a call on this architecture; nil: it has no such call. The library is older than the kernel: it does not know
  /// the newest names, whose numbers are the same everywhere.
  static func number(of name: String) -> Int32? { SeccompProfile.newNumbers[name] ?? numberInLibrary(of: name) }

  static func numberInLibrary(of name: String) -> Int32? {
    let number = seccomp_syscall_resolve_name(name)
    return number >= 0 ? number : nil
  }

  // MARK: Answers

  /// What happens to a call: the first rule that holds decides, and after the last one EPERM. Nothing stands after a rule that
  /// always holds.
  private typealias Answer = [SeccompProfile.Rule]

  private static func answers(_ profile: SeccompProfile) -> [UInt32: Answer] {
    var answers: [UInt32: Answer] = [:]
    for rule in profile.rules {
      let bare = SeccompProfile.Rule([], rule.action, rule.arguments)
      for name in rule.names {
        guard let number = number(of: name).map(UInt32.init) else { continue }
        if answers[number]?.last?.arguments.isEmpty != true { answers[number, default: []].append(bare) }
      }
    }
    return answers
  }

  /// The numbers from 0 through `newest`, as first numbers of runs that are answered alike.
  private static func ranges(_ answers: [UInt32: Answer], through newest: UInt32) -> [(first: UInt32, answer: Answer)] {
    var ranges: [(first: UInt32, answer: Answer)] = []
    for number in 0...newest {
      let answer = answers[number] ?? []
      if ranges.last?.answer != answer { ranges.append((number, answer)) }
    }
    return ranges
  }

  // MARK: Code

  /// `struct sock_filter`.
  private struct Step {
    var code: UInt16
    var whenTrue: UInt8 = 0
    var whenFalse: UInt8 = 0
    var value: UInt32

    var bytes: [UInt8] {
      withUnsafeBytes(of: code) { Array($0) } + [whenTrue, whenFalse] + withUnsafeBytes(of: value) { Array($0) }
    }

    /// A word of `struct seccomp_data`.
    static func load(_ place: UInt32) -> Step { Step(code: 0x20, value: place) }
    static func and(_ mask: UInt32) -> Step { Step(code: 0x54, value: mask) }
    static func jump(_ over: Int) -> Step { Step(code: 0x05, value: UInt32(over)) }
    static func answer(_ value: UInt32) -> Step { Step(code: 0x06, value: value) }
    enum Test: UInt16 { case equal = 0x15, greater = 0x25, atLeast = 0x35 }
    static func skip(_ over: UInt8, _ test: Test, _ value: UInt32) -> Step {
      Step(code: test.rawValue, whenTrue: over, value: value)
    }
    static func skip(_ over: UInt8, not test: Test, _ value: UInt32) -> Step {
      Step(code: test.rawValue, whenFalse: over, value: value)
    }
  }

  private enum Action {
    static let allow: UInt32 = 0x7fff_0000
    static let killProcess: UInt32 = 0x8000_0000
    static func errno(_ code: Int32) -> UInt32 { 0x0005_0000 | UInt32(code) & 0xffff }
  }

  private static func value(_ action: SeccompProfile.Action) -> UInt32 {
    switch action {
    case .allow: Action.allow
    case .errno(let code): Action.errno(Int32(truncatingIfNeeded: code))
    }
  }

  /// Leaves the number loaded, which is at most `newest` afterwards.
  private static func head(_ newest: UInt32) -> [Step] {
    let kill = Step.answer(Action.killProcess)
    var code: [Step] = [
      .load(4), .skip(1, .equal, seccomp_arch_native()), kill, .load(0), .skip(5, not: .greater, newest),
    ]
    // A number with bit 30 is x32's; all bits are what a tracer writes to have a call skipped.
    code += [
      .skip(2, not: .atLeast, 0x4000_0000), .skip(2, .equal, .max), kill,
      .answer(Action.errno(ENOSYS)), .answer(Action.errno(EPERM)),
    ]
    return code
  }

  /// Halves the ranges until one is left. A condition can jump over 255 instructions, an unconditional jump over any number.
  private static func tree(_ ranges: ArraySlice<(first: UInt32, answer: Answer)>) -> [Step] {
    guard ranges.count > 1 else { return ranges.first.map { leaf($0.answer) } ?? [] }
    let middle = ranges.startIndex + ranges.count / 2
    let low = tree(ranges[..<middle])
    let high = tree(ranges[middle...])
    let split = ranges[middle].first
    let over = UInt8(exactly: low.count).map { [Step.skip($0, .atLeast, split)] }
    return (over ?? [.skip(1, not: .atLeast, split), .jump(low.count)]) + low + high
  }

  private static func leaf(_ answer: Answer) -> [Step] {
    var code: [Step] = []
    for rule in answer {
      let decision = Step.answer(value(rule.action))
      guard !rule.arguments.isEmpty else { return code + [decision] }
      // From the back, so that each test knows how far the next rule is.
      var block = [decision]
      for argument in rule.arguments.reversed() { block = tests(argument, before: block.count) + block }
      code += block
    }
    return code + [.answer(Action.errno(EPERM))]
  }

  /// Goes on where the argument is as it should be, and over the `rest` of the rule where not. The machine has 32 bits: an argument
  /// is two words, in the host's order; a word whose bits all do not matter is left out.
  private static func tests(_ argument: SeccompProfile.Argument, before rest: Int) -> [Step] {
    let place = 16 + 8 * UInt32(argument.index)
    func word(_ place: UInt32, _ mask: UInt64, _ value: UInt64, before rest: Int) -> [Step] {
      let (mask, value) = (UInt32(truncatingIfNeeded: mask), UInt32(truncatingIfNeeded: value))
      guard mask | value != 0 else { return [] }
      return [.load(place)] + (mask == .max ? [] : [.and(mask)]) + [.skip(UInt8(rest), not: .equal, value)]
    }
    func words(_ mask: UInt64, _ value: UInt64) -> [Step] {
      let high = word(place + 4, mask >> 32, value >> 32, before: rest)
      return word(place, mask, value, before: rest + high.count) + high
    }
    switch argument.comparison {
    case .equal(let value): return words(.max, value)
    case .masked(let mask, let value): return words(mask, value)
    case .noneOf(let excluded):
      let tests = excluded.indices.map { Step.skip(UInt8(rest + excluded.count - 1 - $0), .equal, excluded[$0]) }
      return [.load(place)] + tests
    }
  }
}
