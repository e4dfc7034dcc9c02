internal import Glibc
internal import Linux
package import Model

/// The kernel's packet filter, nftables, through the program nft(8).
///
/// It holds what apps may reach, from outside of them: no capability of an app's changes it, and it stays when the daemon ends. This
/// target makes the rules' text (FilterRules) and hands it to nft, a transaction at a time; it never reads or changes tables of others.
/// Next: FilterRules.swift, then the target Networking, which decides who is in it.
///
/// A program and not its library: that is GPL-2.0-only, which nothing of ours may be linked with. One call is 3 to 5 ms, and keeps its
/// thread that long.
package struct PacketFilter: Sendable {
  /// The package that brings the program, for hints.
  package static let package = "nftables"
  private let program: String

  /// Throws `refused` with what is missing.
  package init() throws(HostFailure) {
    guard getuid() == 0 else {
      throw HostFailure(
        .refused, "the packet filter is the system's: only root sets it", hint: "Use the system's instance")
    }
    let places = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"]
    guard let found = places.first(where: { Place.isProgram($0) }) else {
      throw HostFailure(
        .refused, "nft, which sets the packet filter, is not on this host", hint: "apt-get install \(Self.package)")
    }
    program = found
    _ = try run("list tables inet")
  }

  /// Why there is no packet filter here; nil: there is one.
  package static var obstacle: HostFailure? {
    do throws(HostFailure) {
      _ = try PacketFilter()
      return nil
    } catch { return error }
  }

  /// Runs commands as nft(8) reads them: all of them or none. Returns what they print: numbers instead of names, no counters, and sets'
  /// elements only if asked for.
  @discardableResult
  package func run(_ commands: String, elements: Bool = false) throws(HostFailure) -> String {
    let (code, said, complaints): (Int32, String, String)
    do throws(SystemFault) { (code, said, complaints) = try spawn(commands, elements) } catch {
      throw HostFailure(.failed, "the packet filter could not be set: \(error)")
    }
    guard code == 0 else {
      let first = complaints.split(separator: "\n").first.map(String.init) ?? "nft ended with \(code)"
      throw HostFailure(
        .failed, "the packet filter could not be set: \(first)",
        hint: "This kernel may lack nf_tables, or a part of it: `supervisor doctor` says")
    }
    return said
  }

  private func spawn(_ commands: String, _ elements: Bool) throws(SystemFault) -> (Int32, String, String) {
    let input = try SealedMemory.make("nft-commands", Array(commands.utf8))
    let output = try ScratchMemory.make("nft-output")
    let errors = try ScratchMemory.make("nft-errors")
    let arguments = ["nft", "-n", "-s"] + (elements ? [] : ["-t"]) + ["-f", "-"]
    let pid = try input.withRaw { (input) throws(SystemFault) in
      try output.withRaw { (output) throws(SystemFault) in
        try errors.withRaw { (errors) throws(SystemFault) in
          try Children.spawn(program, arguments, descriptors: [input, output, errors])
        }
      }
    }
    let end = try Children.wait(pid, block: true)?.end
    let code: Int32 =
      switch end {
      case .code(let code): code
      case .signal(let number): 128 + number
      case nil: -1
      }
    return (code, try ScratchMemory.text(output), try ScratchMemory.text(errors))
  }
}

extension PacketFilter {
  /// A chain of somebody else's that drops what is routed, unless a rule of it says otherwise.
  package struct Dropping: Sendable, Equatable, CustomStringConvertible {
    /// As in `ip filter`.
    package var table: String
    package var chain: String
    package var description: String { "\(table) \(chain)" }
  }

  /// The chains that drop forwarded packets by their policy, tables of this project's instances left out. Our own rules cannot overrule
  /// them: a packet passes only what every table lets pass (nft(8), "Verdict statements").
  package func dropping() throws(HostFailure) -> [Dropping] { Self.dropping(in: try run("list chains")) }

  /// The same, read from what `nft -n list chains` prints.
  package static func dropping(in listing: String) -> [Dropping] {
    var table = ""
    var chain = ""
    var found: [Dropping] = []
    for line in listing.split(separator: "\n") {
      let words = line.split { $0 == " " || $0 == "\t" || $0 == ";" || $0 == "{" }
      switch words.first {
      case "table": table = words.dropFirst().joined(separator: " ")
      case "chain": chain = words.dropFirst().joined(separator: " ")
      case "type" where words.contains("forward") && words.suffix(2) == ["policy", "drop"]:
        let isRouted = ["ip ", "inet "].contains { table.hasPrefix($0) }
        if isRouted, !table.contains(" appsupervisor_") { found.append(Dropping(table: table, chain: chain)) }
      default: break
      }
    }
    return found
  }
}
