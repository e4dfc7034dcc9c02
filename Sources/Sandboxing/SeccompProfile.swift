package import Model

/// A system call filter as data: what is allowed, what is answered with which error, and why.
///
/// One list for all runtimes: as JSON it is what an Engine takes, as a program what the shim loads. Everything not named gets EPERM; a number newer than the
/// list gets ENOSYS from runc and crun themselves, so that a C library falls back as on an older kernel.
package struct SeccompProfile: Sendable, Equatable {
  package enum Action: Sendable, Equatable {
    case allow
    case errno(Int64)
  }

  /// A condition on one argument; all of a rule's must hold.
  package struct Argument: Sendable, Equatable {
    /// Its place, from 0.
    package var index: Int64
    package var comparison: Comparison
    package enum Comparison: Sendable, Equatable {
      case equal(UInt64)
      /// The bits of `mask` are `value`.
      case masked(UInt64, UInt64)
      /// The lower 32 bits are none of these. At most one in a rule.
      case noneOf([UInt32])
    }
    package init(_ index: Int64, _ comparison: Comparison) {
      self.index = index
      self.comparison = comparison
    }
  }

  package struct Rule: Sendable, Equatable {
    package var names: [String]
    package var action: Action
    package var arguments: [Argument]
    /// Why this rule is as it is; empty for what any program needs.
    package var reason: String
    package init(_ names: [String], _ action: Action = .allow, _ arguments: [Argument] = [], why reason: String = "") {
      self.names = names
      self.action = action
      self.arguments = arguments
      self.reason = reason
    }
  }

  package enum Architecture: String, Sendable {
    case x86_64 = "SCMP_ARCH_X86_64"
    case aarch64 = "SCMP_ARCH_AARCH64"
    /// What this program was built for; its apps are the same.
    package static var current: Architecture {
      #if arch(arm64)
        .aarch64
      #else
        .x86_64
      #endif
    }
  }

  /// Calls by any other architecture (int 0x80, x32) kill: their numbers would mean other calls.
  package var architecture: Architecture
  package var rules: [Rule]

  /// Which socket families an app may open.
  package struct Families: OptionSet, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    package static let unix = Families(rawValue: 1)
    /// IPv4 and IPv6, in the app's own network namespace.
    package static let internet = Families(rawValue: 2)
    /// Asking the kernel for addresses and routes, as resolvers and `getifaddrs` do.
    package static let netlink = Families(rawValue: 4)
    package static let packet = Families(rawValue: 8)
  }

  /// The filter for an app. `capabilities` (without `CAP_`) open the calls they are about.
  package init(
    architecture: Architecture = .current, families: Families, capabilities: [String] = []
  ) {
    self.architecture = architecture
    var families = families
    if capabilities.contains("NET_RAW") { families.insert(.packet) }
    let isAdministrator = capabilities.contains("SYS_ADMIN")
    rules = [Rule(SeccompTable.always)]
    rules += architecture == .x86_64 ? [Rule(SeccompTable.onX86)] : []
    rules += SeccompTable.conditional
    rules += SeccompTable.sockets(families)
    rules += SeccompTable.terminals
    if !isAdministrator { rules += SeccompTable.namespaces }
    for capability in capabilities.sorted() {
      if let names = SeccompTable.byCapability[capability] {
        rules.append(Rule(names, why: "CAP_\(capability) is granted"))
      }
    }
  }

  /// The filter of an app by its policy, one for all runtimes; nil: `seccomp=unconfined`.
  package init?(_ policy: Policy) {
    guard !policy.securityOptions.contains("seccomp=unconfined") else { return nil }
    // A namespace of the app's own has only loopback in it, which servers and their checks need; a minimal app without a
    // network has no use for it either.
    let closed = policy.network.mode == .none && policy.preset == .minimal
    self.init(families: closed ? [.unix] : [.unix, .internet, .netlink], capabilities: policy.effectiveCapabilities)
  }

  /// Numbers of the newest calls, alike on all architectures (asm-generic/unistd.h), for a library that is older than they are.
  package static let newNumbers: [String: Int32] = [
    "futex_waitv": 449, "set_mempolicy_home_node": 450, "cachestat": 451, "fchmodat2": 452, "map_shadow_stack": 453,
    "futex_wake": 454, "futex_wait": 455, "futex_requeue": 456, "statmount": 457, "listmount": 458, "mseal": 462,
    "setxattrat": 463, "getxattrat": 464, "listxattrat": 465, "removexattrat": 466,
  ]
  /// The newest number that was looked at (`open_tree_attr`, Linux 6.15).
  package static let newestNumber: Int32 = 467

  /// The profile in the form Docker, Podman and the OCI runtimes share.
  package var json: JSONValue {
    .object([
      "defaultAction": "SCMP_ACT_ERRNO", "architectures": [.string(architecture.rawValue)],
      "syscalls": .array(rules.flatMap(Self.spelledOut).map(Self.json)),
    ])
  }

  /// Engines have no "is none of": the same as rules that compare bits.
  private static func spelledOut(_ rule: Rule) -> [Rule] {
    for (place, argument) in rule.arguments.enumerated() {
      guard case .noneOf(let excluded) = argument.comparison else { continue }
      return allBut(excluded).map { comparison in
        var one = rule
        one.arguments[place].comparison = comparison
        return one
      }
    }
    return [rule]
  }

  private static func json(_ rule: Rule) -> JSONValue {
    var action = "SCMP_ACT_ALLOW"
    var code: JSONValue?
    if case .errno(let number) = rule.action {
      action = "SCMP_ACT_ERRNO"
      code = .integer(number)
    }
    let arguments = rule.arguments.map { argument -> JSONValue in
      switch argument.comparison {
      case .equal(let value):
        .object(["index": .integer(argument.index), "value": .count(value), "op": "SCMP_CMP_EQ"])
      case .masked(let mask, let value):
        .object([
          "index": .integer(argument.index), "value": .count(mask), "valueTwo": .count(value),
          "op": "SCMP_CMP_MASKED_EQ",
        ])
      case .noneOf: preconditionFailure("spelled out before")
      }
    }
    return .object([
      "names": .array(rule.names.map { .string($0) }), "action": .string(action), "errnoRet": code,
      "args": arguments.isEmpty ? nil : .array(arguments),
    ])
  }

  /// Masked comparisons that together hold for every 32-bit value but those in `excluded`; the upper half of the register does
  /// not count, as it does not for the kernel. A filter has no "is not, in these bits"; this is how it is said.
  static func allBut(_ excluded: [UInt32]) -> [Argument.Comparison] {
    func patterns(_ members: [UInt32], bit: Int) -> [Argument.Comparison] {
      guard bit >= 0 else { return [] }
      var result: [Argument.Comparison] = []
      for side in [UInt32(0), 1] {
        let inside = members.filter { $0 >> UInt32(bit) & 1 == side }
        guard inside.isEmpty, let any = members.first else {
          result += patterns(inside, bit: bit - 1)
          continue
        }
        let mask = UInt32.max << UInt32(bit)
        let above = bit == 31 ? 0 : any & (UInt32.max << UInt32(bit + 1))
        result.append(.masked(UInt64(mask), UInt64(above | side << UInt32(bit))))
      }
      return result
    }
    return patterns(excluded, bit: 31)
  }

  /// Whether a call would pass, for tests: the kernel takes the first rule of a name that matches; none is EPERM.
  func verdict(_ name: String, _ arguments: [UInt64] = []) -> Action {
    for rule in rules where rule.names.contains(name) {
      let holds = rule.arguments.allSatisfy { argument in
        let value = argument.index < arguments.count ? arguments[Int(argument.index)] : 0
        return switch argument.comparison {
        case .equal(let wanted): value == wanted
        case .masked(let mask, let wanted): value & mask == wanted
        case .noneOf(let excluded): !excluded.contains(UInt32(truncatingIfNeeded: value))
        }
      }
      if holds { return rule.action }
    }
    return .errno(1)
  }
}
