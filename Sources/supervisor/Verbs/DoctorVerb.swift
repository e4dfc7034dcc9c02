import ArgumentParser
internal import CLinux
internal import Cgroups
internal import Client
internal import Glibc
internal import Linux
internal import Model
internal import PacketFilter
internal import RPC
internal import Scheduling

/// `supervisor doctor`
struct Doctor: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract:
      "Say which limits and layers this host can enforce, proved by trying each, and how to get what is missing.",
    discussion:
      "Needs no daemon. As an ordinary user it shows what that user can have. Exit code 1 if something required is missing."
  )
  @OptionGroup var common: Common

  func run() throws {
    let session = try Session(common)
    var examination = Examination()
    examination.host()
    examination.limits()
    examination.outOfMemory()
    examination.layers()
    examination.programs(session.daemon)
    examination.engines(session.environment)
    examination.daemon(session.daemon)
    examination.print(json: common.format == .json)
    if examination.checks.contains(where: { $0.verdict == .missing && $0.required }) { throw ExitCode(1) }
  }
}

/// One thing that was looked at.
struct Check {
  enum Verdict: String { case enforced, available, missing, notBuilt = "not built", absent }
  var area: String
  var name: String
  var verdict: Verdict
  var detail: String
  var fix: String?
  /// Without it, `enforcement: strict` refuses apps that ask for it.
  var required = false
}

/// The examination of this host; every check tries the thing itself.
struct Examination {
  private(set) var checks: [Check] = []

  private mutating func add(
    _ area: String, _ name: String, _ verdict: Check.Verdict, _ detail: String, fix: String? = nil,
    required: Bool = false
  ) {
    checks.append(Check(area: area, name: name, verdict: verdict, detail: detail, fix: fix, required: required))
  }

  // MARK: Host

  mutating func host() {
    var name = utsname()
    uname(&name)
    let release = withUnsafeBytes(of: &name.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    add("host", "kernel", .available, release)
    do throws(SystemFault) {
      let hierarchy = try CgroupHierarchy.detect()
      let places = hierarchy.facts.map { "\($0.controller.rawValue): \($0.place ?? "none")" }.joined(separator: ", ")
      add("host", "cgroups", .available, "\(hierarchy.layout.rawValue) (\(places))")
    } catch {
      add("host", "cgroups", .missing, error.description, fix: "mount cgroup2 on /sys/fs/cgroup", required: true)
    }
  }

  /// Whether the kernel remembers how soon apps are to be killed for memory, so that none of them can take that back.
  mutating func outOfMemory() {
    guard getuid() == 0 else { return }
    let isKept = Privileges.keepsOutOfMemoryScore
    add(
      "limits", "oom_score_adj", isKept ? .enforced : .missing,
      isKept
        ? "an app cannot lower its own below what its policy says"
        : "a container could lower its own: the supervisor lacks CAP_SYS_RESOURCE of the host. Native apps are held by Landlock",
      fix: isKept ? nil : "run the supervisor with CAP_SYS_RESOURCE on the host itself")
  }

  // MARK: Limits

  /// Makes a cgroup, writes every limit, reads each back from the kernel, and removes the cgroup.
  mutating func limits() {
    // best effort: `host` told why.
    guard let hierarchy = try? CgroupHierarchy.detect(), let app = AppID("probe") else { return }
    let parent = "/appsupervisor-doctor-\(getpid())"
    let group = AppCgroup(hierarchy, parent: parent, app: app, kind: .native)
    var asked = Limits()
    asked.memory = .mebibytes(64)
    asked.memoryAndSwap = .mebibytes(64)
    asked.memoryReservation = .mebibytes(32)
    asked.memoryHigh = .mebibytes(48)
    asked.cpus = 0.5
    asked.pids = 16
    asked.cpuset = "0"
    if let disk = Self.disk() {
      asked.block.writeBytesPerSecond = [.init(path: disk, rate: 10 << 20)]
      asked.block.weight = 300
    }
    let share = CPUShare(.normal)
    do throws(SystemFault) { try group.create(asked) } catch {
      add(
        "limits", "cgroup of an app", .missing, error.description,
        fix: getuid() == 0
          ? "the cgroup file system must be writable"
          : "run as root, or give your user delegated cgroups (systemd: Delegate=yes)", required: true)
      return
    }
    // best effort: an empty group left behind holds nothing..
    defer {
      _ = try? group.remove(within: .seconds(1))
      AppCgroup.removeParent(hierarchy, parent: parent)
    }
    let short = group.apply(asked, share: share)
    for report in group.readBack(asked, share: share) {
      let why = short.first { $0.limit == report.name }?.reason
      add(
        "limits", report.name, report.status == .enforced ? .enforced : .missing,
        report.status == .enforced
          ? "asked \(report.asked ?? ""), the kernel says \(report.effective ?? "")"
          : why ?? report.note ?? "the kernel has no such file",
        fix: report.status == .enforced ? nil : Self.fix(report.name, why),
        required: ["mem_limit", "pids_limit", "cpus"].contains(report.name))
    }
  }

  private static func disk() -> String? {
    // best effort: without a disk, its limits are not tried.
    let names = (try? Folder(opening: "/sys/block").names()) ?? []
    // Neither memory nor what may have no medium.
    let others = ["loop", "ram", "zram", "sr", "fd", "nbd"]
    return names.sorted().first { name in !others.contains { name.hasPrefix($0) } }.map { "/dev/\($0)" }
  }

  private static func fix(_ limit: String, _ why: String?) -> String {
    if why?.contains("not delegated") == true {
      return
        "as root: `systemctl edit user@.service`, with `Delegate=cpu cpuset io memory pids` under [Service]; then log in anew"
    }
    return switch limit {
    case "memory_and_swap", "memswap_limit":
      "boot with swapaccount=1 (cgroup v1), or use cgroup v2; without swap the memory limit is the whole limit"
    case "mem_high": "needs cgroup v2's memory controller: boot with systemd.unified_cgroup_hierarchy=1"
    case "blkio_weight", "blkio_config.weight":
      "needs the bfq or iocost scheduler; bytes per second can be limited instead"
    default: "boot a kernel with this controller, or leave the limit out of the policy"
    }
  }

  // MARK: Layers

  mutating func layers() {
    let namespaces: [(String, Int32)] = [
      ("user namespace", 0x1000_0000), ("mount namespace", 0x0002_0000), ("pid namespace", 0x2000_0000),
      ("network namespace", 0x4000_0000),
      ("ipc namespace", 0x0800_0000), ("uts namespace", 0x0400_0000), ("cgroup namespace", 0x0200_0000),
    ]
    for (name, flag) in namespaces {
      // An ordinary user needs the user namespace for all others.
      let result = cl_try_unshare(getuid() == 0 ? flag : flag | 0x1000_0000)
      add(
        "layers", name, result == 0 ? .enforced : .missing, result == 0 ? "made one" : SystemFault.text(of: -result),
        fix: result == 0 ? nil : "sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone must allow it",
        required: true)
    }
    let privileges = cl_try_no_new_privs()
    add(
      "layers", "no new privileges", privileges == 0 ? .enforced : .missing,
      privileges == 0 ? "set it" : SystemFault.text(of: -privileges), required: true)
    let filter = cl_try_seccomp()
    add(
      "layers", "seccomp", filter == 0 ? .enforced : .missing,
      filter == 0 ? "loaded a filter" : SystemFault.text(of: -filter), required: true)
    let abi = cl_landlock_abi()
    add(
      "layers", "Landlock (native apps)", abi > 0 ? .enforced : .missing,
      abi > 0 ? "ABI \(abi)" : "the kernel has none",
      fix: abi > 0 ? nil : "boot with landlock among `lsm=`; apps with enforcement: degrade run without it",
      required: true)
    if getuid() != 0 {
      nativeApps()
    }
    let obstacle = PacketFilter.obstacle
    add(
      "layers", "packet filter (apps with a network)", obstacle == nil ? .enforced : .missing,
      obstacle?.message ?? "nftables answers", fix: obstacle?.hint)
    otherFirewalls()
  }

  /// Docker's is one: networks of native apps are made by it then, and let through.
  private mutating func otherFirewalls() {
    // best effort: without a packet filter there is nothing to read, as said before.
    guard let filter = try? PacketFilter(), let dropping = try? filter.dropping() else { return }
    for chain in dropping {
      add(
        "layers", "packet filter of others", .missing,
        "\(chain) drops what it does not know: native apps reach other hosts only over networks that an engine made",
        fix: "let their bridges through: `nft insert rule \(chain) iifname \"asb*\" accept` and the same with oifname")
    }
  }

  /// What an ordinary user's native apps need, besides what root's do.
  private mutating func nativeApps() {
    // best effort: a host whose cgroups cannot be read has none, as `limits` says.
    guard let hierarchy = try? CgroupHierarchy.detect() else { return }
    let lack = OrdinaryUser.lack(hierarchy)
    add(
      "layers", "native apps", lack == nil ? .enforced : .missing,
      lack?.what ?? "ids of their own by newuidmap, groups by your user's systemd", fix: lack?.fix)
  }

  // MARK: Programs, engines, daemon

  mutating func programs(_ daemon: Daemon) {
    for name in ["supervisor-daemon", "supervisor-shim"] {
      let path = daemon.program(name)
      add(
        "programs", name, path == nil ? .missing : .available, path ?? "not beside this program",
        fix: path == nil ? "install it from the same build" : nil, required: true)
    }
  }

  mutating func engines(_ environment: [String: String]) {
    let endpoints = EngineEndpoint.candidates(
      given: nil, environment: { environment[$0] }, runtimeFolder: environment["XDG_RUNTIME_DIR"])
    for endpoint in endpoints {
      do throws(SystemFault) {
        _ = try UnixSocket.connect(endpoint.socket)
        add("engines", endpoint.socket, .available, "answers")
      } catch {
        add(
          "engines", endpoint.socket, .absent, SystemFault.text(of: error.code),
          fix: "start the engine, or do without: `fallback: native`")
      }
    }
  }

  mutating func daemon(_ daemon: Daemon) {
    // best effort: it may not run.
    if let client = try? daemon.connect(), let version = try? client.call("version") {
      if let engine = version["engine"] { gate(engine) }
      add("daemon", "this instance", .available, "pid \(version["pid"]?.integerValue ?? 0), \(daemon.folders.socket)")
      degraded(client)
    } else {
      add(
        "daemon", "this instance", .absent, "not running (\(daemon.folders.socket))", fix: "`supervisor up` starts it")
    }
  }

  /// Apps that run without something their policy asks for, because it says `enforcement: degrade`.
  private mutating func degraded(_ client: RPCClient) {
    // best effort: who may not list apps does not see them here either.
    let apps = (try? client.call("app.list"))?["apps"]?.arrayValue ?? []
    for app in apps {
      for line in (app["missing"]?.arrayValue ?? []).compactMap(\.stringValue) {
        add(
          "apps", app["name"]?.stringValue ?? "", .missing, "runs degraded: \(line)",
          fix: "make this host able to hold it, or change the policy; enforcement: strict refuses instead")
      }
    }
  }

  /// What the daemon thinks of its engine's version and of the programs behind it.
  private mutating func gate(_ engine: JSONValue) {
    guard let name = engine["name"]?.stringValue, let verdict = engine["gate"]?.stringValue else { return }
    let about = "\(name) \(engine["version"]?.stringValue ?? "")"
    let reasons = (engine["gate_reasons"]?.arrayValue ?? []).compactMap(\.stringValue)
    guard verdict != "trusted" else { return add("engines", "versions", .available, "\(about): trusted") }
    for reason in reasons {
      add(
        "engines", "versions", .missing, "\(about) is \(verdict): \(reason)",
        fix: verdict == "refused"
          ? "upgrade it, or change engine_gate in config.yaml" : "upgrade it; engine_gate in config.yaml can refuse it")
    }
  }

  // MARK: Printing

  func print(json: Bool) {
    if json {
      for check in checks {
        Output.line(
          JSONValue.object([
            "area": .string(check.area), "name": .string(check.name), "state": .string(check.verdict.rawValue),
            "detail": .string(check.detail),
            "fix": .optional(check.fix), "required": .bool(check.required),
          ]).text)
      }
      return
    }
    var area = ""
    let width = checks.map(\.name.count).max() ?? 0
    for check in checks {
      if check.area != area {
        Output.line(
          (area.isEmpty ? "" : "\n") + Style.bold.on(check.area.prefix(1).uppercased() + check.area.dropFirst()))
        area = check.area
      }
      let (mark, style): (String, Style) =
        switch check.verdict {
        case .enforced, .available: ("✔", .good)
        case .missing: ("✘", check.required ? .error : .warning)
        case .notBuilt: ("–", .warning)
        case .absent: ("·", .dim)
        }
      let gap = String(repeating: " ", count: width - check.name.count)
      Output.line(
        "  \(style.on(mark)) \(check.name)\(gap)  \(style.on(check.verdict.rawValue))  \(Output.escaped(check.detail))")
      if let fix = check.fix { Output.line("    \(Style.dim.on("→ \(fix)"))") }
    }
  }
}
