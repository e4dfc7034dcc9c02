import Model
import Testing

@testable import Sandboxing
@testable import Seccomp

/// A classic BPF machine (Documentation/networking/filter.rst), as far as system call filters use it.
private struct Machine {
  struct Fault: Error {}
  struct Step {
    var code: UInt16
    var whenTrue: UInt8
    var whenFalse: UInt8
    var value: UInt32
  }
  let steps: [Step]
  /// Which were executed so far.
  var covered: Set<Int> = []

  init(_ bytes: [UInt8]) {
    var steps: [Step] = []
    for at in stride(from: 0, to: bytes.count, by: 8) {
      let code = UInt16(bytes[at]) | UInt16(bytes[at + 1]) << 8
      var value: UInt32 = 0
      for place in (4..<8).reversed() { value = value << 8 | UInt32(bytes[at + place]) }
      steps.append(Step(code: code, whenTrue: bytes[at + 2], whenFalse: bytes[at + 3], value: value))
    }
    self.steps = steps
  }

  mutating func run(architecture: UInt32, number: UInt32, _ arguments: [UInt64]) throws -> UInt32 {
    var data: [UInt32] = [number, architecture, 0, 0]
    for index in 0..<6 {
      let value = index < arguments.count ? arguments[index] : 0
      data += [UInt32(truncatingIfNeeded: value), UInt32(value >> 32)]
    }
    var accumulator: UInt32 = 0
    var at = 0
    while at < steps.count {
      covered.insert(at)
      let step = steps[at]
      func jump(_ holds: Bool) -> Int { Int(holds ? step.whenTrue : step.whenFalse) }
      switch step.code {
      case 0x20: accumulator = data[Int(step.value / 4)]
      case 0x54: accumulator &= step.value
      case 0x05: at += Int(step.value)
      case 0x15: at += jump(accumulator == step.value)
      case 0x25: at += jump(accumulator > step.value)
      case 0x35: at += jump(accumulator >= step.value)
      case 0x06: return step.value
      default: throw Fault()
      }
      at += 1
    }
    throw Fault()
  }
}

@Suite("the filter as a program")
struct FilterProgramTests {
  private static let architecture: UInt32 = SeccompProfile.Architecture.current == .x86_64 ? 0xC000_003E : 0xC000_00B7
  private static let allow: UInt32 = 0x7fff_0000

  private static func expected(_ action: SeccompProfile.Action) -> UInt32 {
    switch action {
    case .allow: allow
    case .errno(let code): 0x0005_0000 | UInt32(code)
    }
  }

  /// Values at which some rule changes its mind, and some with higher bits set, which the kernel may not read.
  private static let values: [UInt64] = [
    0, 1, 2, 3, 10, 16, 17, 40, 38, 0o644, 0o2755, 0o4755, 0o6755, 0o100, 0o20000100, 0x5401, 0x5412, 0x541C,
    0x1_0000_5412, 0x7E02_0000, 0x1000_0000, 0x0002_0000, 0x4000_0000, UInt64(UInt32.max), 0xFFFF_FFFF_0000_0001,
  ]

  @Test(
    "it answers as the list says, for every call and telling arguments",
    arguments: [
      SeccompProfile(families: .unix), SeccompProfile(families: [.unix, .internet, .netlink]),
      SeccompProfile(families: [.unix, .internet, .netlink], capabilities: ["NET_RAW", "SYS_ADMIN", "SYS_TIME"]),
    ])
  func agrees(_ profile: SeccompProfile) throws {
    var machine = Machine(try FilterProgram.compile(profile))
    #expect(machine.steps.count < 400, "\(machine.steps.count) instructions: each costs every start of an app")
    var names = Set(profile.rules.flatMap(\.names))
    names.formUnion([
      "io_uring_setup", "mount", "bpf", "ptrace", "unshare", "setns", "keyctl", "userfaultfd", "init_module",
    ])
    for name in names.sorted() {
      guard let number = FilterProgram.number(of: name) else { continue }
      let rules = profile.rules.filter { $0.names.contains(name) }
      let places = Set(rules.flatMap(\.arguments).map(\.index)).sorted()
      var calls: [[UInt64]] = [[]]
      for place in places {
        calls = calls.flatMap { call in
          Self.values.map { value in
            var longer = call
            while longer.count <= Int(place) { longer.append(0) }
            longer[Int(place)] = value
            return longer
          }
        }
      }
      for call in calls {
        let answer = try machine.run(architecture: Self.architecture, number: UInt32(number), call)
        #expect(answer == Self.expected(profile.verdict(name, call)), "\(name) \(call)")
      }
    }
    // Numbers nobody has heard of; those of x32; and other architectures.
    for number in UInt32(SeccompProfile.newestNumber + 1)..<600 {
      #expect(try machine.run(architecture: Self.architecture, number: number, []) == 0x0005_0000 | 38)
    }
    if SeccompProfile.Architecture.current == .x86_64 {
      for number: UInt32 in [0x4000_0000, 0x4000_0027, 0x4000_0000 | 900] {
        #expect(try machine.run(architecture: Self.architecture, number: number, []) == 0x8000_0000)
      }
    }
    // What a tracer writes to skip a call.
    #expect(try machine.run(architecture: Self.architecture, number: .max, []) == 0x0005_0001)
    #expect(try machine.run(architecture: 0x4000_0003, number: 11, []) == 0x8000_0000)
    // Every instruction had its turn.
    for number in 0..<UInt32(600) { _ = try machine.run(architecture: Self.architecture, number: number, []) }
    let unseen = machine.steps.indices.filter { !machine.covered.contains($0) }
    #expect(unseen.isEmpty, "\(unseen)")
  }

  @Test("the numbers given here are the library's, where it knows them") func numbers() {
    for (name, number) in SeccompProfile.newNumbers {
      let known = FilterProgram.numberInLibrary(of: name)
      #expect(known == nil || known == number, "\(name)")
      #expect(number <= SeccompProfile.newestNumber)
    }
  }
}
