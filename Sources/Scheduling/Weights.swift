internal import Glibc
package import Model

/// What an app gets of the CPU when others want it too, on both of the kernel's scales.
package struct CPUShare: Sendable, Hashable {
  /// cgroup v2 `cpu.weight`, 1…10000, 100 in the middle.
  package let weight: UInt64
  /// cgroup v1 `cpu.shares` and Docker's `CpuShares`, 2…262144, 1024 in the middle.
  package let shares: UInt64

  /// The share a policy asks for: its `cpu_shares`, else its priority's.
  package init(_ policy: Policy) {
    if let shares = policy.limits.cpuShares {
      self.init(shares: shares)
    } else {
      self.init(policy.priority)
    }
  }

  /// One step of priority is about two steps of nice(1): `weight = round(100 × 1.6^(priority − 5))`, 10…1049.
  package init(_ priority: Priority) {
    weight = UInt64((100 * pow(1.6, Double(priority.value - 5))).rounded())
    shares = max(2, UInt64((1024 * Double(weight) / 100).rounded()))
  }

  /// Docker's scale, clamped to 2…262144: verbatim on v1; on v2 by the formula of current runtimes,
  /// `ceil(10^((L² + 125·L)/612 − 7/34))` with `L = log2(shares)`, which maps 2, 1024, 262144 to 1, 100, 10000.
  package init(shares asked: UInt64) {
    shares = min(max(asked, 2), 262_144)
    let exponent = log2(Double(shares))
    let exact = pow(10, (exponent * exponent + 125 * exponent) / 612 - 7.0 / 34.0)
    // A hair above a whole number is that number: 1024 must be 100, not 101.
    weight = min(max(UInt64((exact - 1e-9).rounded(.up)), 1), 10_000)
  }
}
