package import Model
internal import Policies

package enum ExportFormat: String, Sendable, CaseIterable { case compose, quadlet, kubernetes }

/// A checked policy with what its file set.
package struct ExportSource: Sendable {
  package var policy: Policy
  /// The canonical document: which keys are the file's own.
  package var canonical: JSONValue
  /// For messages.
  package var file: String

  package init(policy: Policy, canonical: JSONValue, file: String) {
    self.policy = policy
    self.canonical = canonical
    self.file = file
  }
}

/// What came of an export.
package struct Export: Sendable {
  /// By name, in the order they are to be read.
  package var files: [(name: String, text: String)] = []
  package var remarks: [Remark] = []
}

/// Writes policies in another format, presets filled in, so that the same limits hold there where the format can say them.
///
/// Each format has a table of what it says of each key. A key that a policy sets and a table does not know is lost, and said so.
package func export(_ sources: [ExportSource], to format: ExportFormat) -> Export {
  switch format {
  case .compose: ComposeExport.export(sources)
  case .quadlet: QuadletExport.export(sources)
  case .kubernetes: KubernetesExport.export(sources)
  }
}

/// What a format says of a policy's key.
enum Said {
  /// The export writes it, or says itself what it cannot write of it.
  case yes
  /// Nothing is lost without it.
  case needless
  /// There is no word for it.
  case no(String)
}

/// The remarks on one policy while it is written.
struct Losses {
  private(set) var remarks: [Remark] = []
  let source: ExportSource

  init(_ source: ExportSource) { self.source = source }

  mutating func add(_ kind: Remark.Kind, _ key: String, _ reason: String) {
    remarks.append(Remark(kind, file: source.file, app: source.policy.id.name, key: key, reason))
  }

  /// Every key that the file sets and the format does not say.
  mutating func addUnsaid(_ table: [String: Said]) {
    for entry in source.policy.environment {
      guard let secret = entry.secret else { continue }
      add(.dropped, "environment.\(entry.name)", "its value is the secret \(secret), which is not written anywhere")
    }
    for key in source.canonical.objectValue?.keys ?? [] where !key.hasPrefix("x-") {
      switch table[key] ?? commonTable[key] {
      case .yes, .needless: break
      case .no(let reason): add(.dropped, key, reason)
      case nil: add(.dropped, key, "there is no word for it")
      }
    }
  }
}

/// What is said alike of every format.
private let commonTable: [String: Said] = [
  "schema": .needless, "id": .yes, "runtime": .needless, "enforcement": .needless, "compat": .needless,
  "fallback": .needless, "image": .yes, "build": .yes, "entrypoint": .yes, "entry": .yes, "environment": .yes,
  "working_dir": .yes, "user": .yes, "read_only": .yes, "cap_add": .yes, "cap_drop": .yes, "security_opt": .yes,
  "group_add": .yes, "volumes": .yes, "tmpfs": .yes, "networks": .yes, "network_mode": .yes, "ports": .yes,
  "extra_hosts": .yes, "dns": .yes, "hostname": .yes, "labels": .yes, "restart": .yes, "depends_on": .yes,
  "stop_grace_period": .yes, "mem_limit": .yes, "cpus": .yes, "pull_policy": .yes, "env_file": .needless,
  "sandbox": .yes, "name": .needless, "stack": .yes,
  "devices": .no("which devices a host has is that host's: name them there"),
  "secrets": .no("secrets are kept by each system in its own way: give it them there"),
  "scheduling": .no("classes of the CPU are the supervisor's own"),
  "mem_high": .no("memory is not reclaimed from a mark on: only the limit holds"),
]

extension ExportSource {
  /// Why this app cannot be a container elsewhere; nil if it can.
  var obstacle: String? {
    switch policy.runtime {
    case .container: nil
    case .native: "it is a process of this host, and has no image"
    case .wasm: "it is a WebAssembly module"
    }
  }
}

extension Policy {
  /// What is written in it; a secret's value is nobody's to export.
  var plainEnvironment: [EnvironmentEntry] { environment.filter { $0.secret == nil } }

  var isPrivileged: Bool { preset == .privileged }
  /// Whether a process of the app may gain privileges.
  var mayGainPrivileges: Bool { securityOptions.contains("no-new-privileges=false") }

  /// Docker's share of the CPU that the policy stands for; nil: the usual one.
  var shares: UInt64? {
    if let shares = limits.cpuShares { return shares }
    guard priority != .normal else { return nil }
    var weight = 100.0
    for _ in 0..<abs(priority.value - 5) { weight *= priority.value > 5 ? 1.6 : 1 / 1.6 }
    return UInt64(max(2, (1024 * weight / 100).rounded()))
  }
}
