import Model
import Testing

@testable import Policies

@Suite("Compose's short and long forms mean the same") struct FormTests {
  @Test("commands are texts or lists")
  func commands() throws {
    let list = try container("entry: [sh, -c, \"echo 'a b'\"]")
    #expect(try container("entry: sh -c \"echo 'a b'\"") == list)
    #expect(try container("command: sh -c \"echo 'a b'\"") == list)
    #expect(complaints("entry: \"sh 'x\"") == ["a quote is left open in this command"])
    let both = try container("entrypoint: /e --x\ncommand: [y]")
    #expect(both.entrypoint == ["/e", "--x"])
    #expect(both.entry == ["y"])
  }

  @Test("environment is a map or a list; a bare name takes the caller's value")
  func environment() throws {
    let map = try container("environment: {B: 2, A: 'x=y', C: ''}")
    #expect(try container("environment: [\"A=x=y\", B=2, C=]") == map)
    #expect(map.environment.map(\.name) == ["A", "B", "C"])
    let taken = reading("id: a\nimage: i\nenvironment: [HOME]\n", environment: ["HOME": "/root"])
    #expect(taken.policy?.environment.first?.value == "/root")
    #expect(complaints("environment: [A=1, A=2]") == ["'A' is given twice"])
    #expect(complaints("environment: [=1]").count == 1)
  }

  @Test("env files are named for the caller, read as Compose reads them, and lose against environment")
  func envFiles() throws {
    let yaml = "id: a\nimage: i\nenv_file: [one.env, {path: two.env, required: false}]\nenvironment: {B: own}\n"
    let named = envFilesNamed(in: Array(yaml.utf8))
    #expect(named.map(\.path) == ["one.env", "two.env"])
    #expect(named.map(\.required) == [true, false])
    let file = "# c\n\nA=1\nexport B=file\nC='a # b'\nD=\"x\" # c\nE=v # comment\nF=\nG = g\n"
    let read = reading(yaml, envFiles: ["one.env": file])
    let values = Dictionary(uniqueKeysWithValues: try #require(read.policy).environment.map { ($0.name, $0.value) })
    #expect(values == ["A": "1", "B": "own", "C": "a # b", "D": "x", "E": "v", "F": "", "G": "g"])
    #expect(reading(yaml).errors.map(\.message) == ["there is no file 'one.env' that can be read"])
    let long = String(repeating: "A=1\n", count: 4096)
    #expect(reading(yaml, envFiles: ["one.env": long]).errors.count == 1)
    #expect(
      reading(yaml, envFiles: ["one.env": "nonsense\n"]).errors.map(\.message) == [
        "line 1 of 'one.env' is not NAME=VALUE"
      ])
  }

  @Test("ports: short, ranges, protocols, addresses and the long form")
  func ports() throws {
    #expect(try container("ports: [\"8080:80\"]") == container("ports: [{target: 80, published: \"8080\"}]"))
    #expect(try container("ports: [80]").network.ports == [PublishedPort(hostPort: 0, appPort: 80)])
    #expect(
      try container("ports: [\"0.0.0.0:53:53/udp\"]").network.ports == [
        PublishedPort(hostAddress: "0.0.0.0", hostPort: 53, appPort: 53, transport: .udp)
      ])
    #expect(
      try container("ports: [\"[::1]:80:81\"]").network.ports == [
        PublishedPort(hostAddress: "::1", hostPort: 80, appPort: 81)
      ])
    #expect(try container("ports: [\"80-82:90-92\"]").network.ports.map(\.appPort) == [90, 91, 92])
    #expect(try container("ports: [\"80:80\", \"80:80/udp\"]").network.ports.count == 2)
    for bad in [
      "80:81:82", "a:80", "0:", "80:", "70000:80", "80-90:80", "90-80:90-80", "80:80/icmp", "::1:80:80", "-80",
      "80/tcp/udp", "1.2.3.256:1:1",
    ] {
      #expect(complaints("ports: [\"\(bad)\"]").count == 1, "\(bad)")
    }
    #expect(complaints("ports: [\"80:1\", \"80:2\"]") == ["host port 80/tcp is published twice"])
    #expect(complaints("ports: [\"80:1\", \"0.0.0.0:80:2\"]").count == 1)
  }

  @Test("volumes: short, long, and what stands behind them")
  func volumes() throws {
    #expect(
      try container("volumes: [\"d:/data:ro\"]")
        == container("volumes: [{type: volume, source: d, target: /data, read_only: true}]"))
    let bind = try container("volumes: [\"./c/../conf:/conf\"]")
    #expect(bind.mounts.first?.kind == .bind(source: "/srv/shop/conf"))
    #expect(try container("volumes: [{type: bind, source: conf, target: /conf/}]") == bind)
    #expect(
      try container("volumes: [{type: tmpfs, target: /m, tmpfs: {size: 1m}}]")
        == container("volumes: [{type: memory, target: /m, size: 1m}]"))
    #expect(try container("tmpfs: /m:size=1m") == container("tmpfs: [\"/m:size=1m,nosuid\"]"))
    #expect(try container("tmpfs: /tmp:size=1m").mounts.map(\.target) == ["/tmp"])
    for bad in [
      "/data", "d:/a:x", "~/x:/x", "a/b:/x", "d:x", "d:/a/../b", "d:/", "d:/proc/x", "d:/sys", "d:/dev",
      "d:/run/supervisor", "/:/x", "/proc:/x",
      "/var/run/docker.sock:/s", "/run/../run/docker.sock:/s", "/run:/r", "/etc:/e", "/var/lib/docker/volumes:/x",
      "/dev/mem:/m",
    ] { #expect(complaints("volumes: [\"\(bad)\"]").count == 1, "\(bad)") }
    #expect(complaints("volumes: [\"a:/x\", \"b:/x/\"]") == ["two mounts have the target /x"])
    #expect(complaints("volumes: [\"a:/x\"]\ntmpfs: /x") == ["two mounts have the target /x"])
    #expect(
      complaints("volumes: [{type: bind, source: ./x, target: /x, size: 1m}]") == ["size does not go with type bind"])
    #expect(complaints("user: image\nvolumes: [{type: bind, source: ./x, target: /x, owner: app}]").count == 1)
    #expect(complaints("volumes: [{type: volume, source: x, target: /x, owner: app}]").count == 1)
    #expect(complaints("volumes: [{target: /x}]") == ["type is missing here"])
  }

  @Test("what is not done is not taken silently")
  func notSilent() {
    #expect(complaints("tmpfs: /m:noexec").count == 1)
    #expect(reading("id: a\nimage: i\nvolumes: [\"d:/d:z\"]\n").problems.map(\.severity) == [.warning])
  }

  @Test(
    "the host's own folders are no root file system and no build context",
    arguments: ["/", "/proc", "/etc", "/var/lib/docker"])
  func hostFolders(_ path: String) {
    #expect(reading("id: a\nentry: x\nrootfs: \(path)\n").policy == nil)
    #expect(reading("id: a\nbuild: \(path)\n").policy == nil)
  }

  @Test("a label without a value is empty, and never the caller's variable")
  func bareLabel() {
    let policy = reading("id: a\nimage: i\nlabels: [HOME]\n", environment: ["HOME": "/root"]).policy
    #expect(policy?.labels == ["HOME": ""])
  }

  @Test("depends_on and networks are lists or maps")
  func lists() throws {
    #expect(try container("depends_on: [c, b]") == container("depends_on: {b: {condition: service_started}, c: null}"))
    #expect(complaints("depends_on: [a]") == ["an app cannot depend on itself"])
    #expect(try container("networks: [n]") == container("networks: {n: null}"))
    let policy = try container("networks: {n: {aliases: [x]}}")
    #expect(policy.network.mode == .named)
    #expect(policy.network.attachments == [Network.Attachment(network: "n", aliases: ["x"])])
    #expect(
      try container("extra_hosts: [\"a=10.0.0.1\", \"b:::1\"]") == container("extra_hosts: {b: \"::1\", a: 10.0.0.1}"))
    #expect(try container("labels: [a=b]") == container("labels: {a: b}"))
    #expect(try container("dns: 1.1.1.1") == container("dns: [1.1.1.1]"))
  }

  @Test("addresses are told from what looks like them")
  func addresses() {
    for good in ["1.2.3.4", "::", "::1", "fe80::1", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "2001:db8::"] {
      #expect(isAddress(good), "\(good)")
    }
    for bad in [
      "1.2.3", "1.2.3.04", "256.1.1.1", ":", ":::", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "g::", "::1%eth0",
      "12345::", "",
    ] {
      #expect(!isAddress(bad), "\(bad)")
    }
  }

  @Test("signals by name and number")
  func signals() throws {
    for (text, number) in [("SIGINT", 2), ("int", 2), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("SIGRTMIN", 34)] {
      #expect(try container("stop_signal: \(text)").stopSignal == Int32(number))
    }
    for bad in ["SIGNOPE", "0", "32", "RTMIN-1", "SIGRTMIN+31"] {
      #expect(complaints("stop_signal: \(bad)").count == 1, "\(bad)")
    }
  }

  @Test("capabilities carry no prefix")
  func capabilities() throws {
    #expect(try container("cap_add: [cap_chown, NET_RAW]").capabilities.add == ["CHOWN", "NET_RAW"])
    #expect(complaints("cap_add: [NOPE]").count == 1)
  }

  @Test("users are numbers, auto or image")
  func users() throws {
    #expect(try container("user: 1000").user == .given(uid: 1000, gid: 1000))
    #expect(try container("user: \"1000:5\"").user == .given(uid: 1000, gid: 5))
    for bad in ["root", "1000:", "-1", "4294967295", "1:2:3"] {
      #expect(complaints("user: \"\(bad)\"").count == 1, "\(bad)")
    }
  }
}

@Suite("Older manifests") struct ManifestTests {
  @Test(
    "each alias is the key it stands for",
    arguments: [
      ("memoryLimitMb: 64", "mem_limit: 64m"), ("maxProcesses: 9", "pids_limit: 9"), ("cpuQuota: 50", "cpus: 0.5"),
      ("networkAllowed: true", "network_mode: bridge"), ("networkAllowed: false", "network_mode: none"),
      ("maxRuntimeSeconds: 90", "max_runtime: 1m30s"),
      ("sandboxed: false", "sandbox: privileged"), ("sandboxed: true", "sandbox: standard"),
      ("command: [x]", "entry: [x]"),
      ("exePath: /x\narguments: [y]", "entry: [/x, y]"),
      ("tileSize: wide\nbackground: true", "labels: {background: \"true\", tileSize: wide}"),
      ("minApiVersion: 1.10", "labels: {minApiVersion: \"1.10\"}"),
      ("pull_policy: if_not_present", "pull_policy: missing"),
    ])
  func aliases(_ old: String, _ new: String) throws {
    #expect(try container(old) == container(new))
    let canonical = reading("id: a\nimage: i\n\(old)\n").canonical
    #expect(canonical == reading("id: a\nimage: i\n\(new)\n").canonical)
  }

  @Test("every alias of the table is tried above")
  func allTried() {
    #expect(
      Policies.aliases.map(\.key).sorted() == [
        "command", "cpuQuota", "maxProcesses", "maxRuntimeSeconds", "memoryLimitMb", "networkAllowed", "sandboxed",
      ])
  }

  @Test("an alias may repeat its key, and may not differ from it")
  func both() throws {
    _ = try container("memoryLimitMb: 64\nmem_limit: 65536k")
    #expect(
      complaints("memoryLimitMb: 64\nmem_limit: 65m") == ["memoryLimitMb and mem_limit are the same thing and differ"])
    #expect(complaints("command: [a]\nentry: [b]") == ["command and entry are the same thing and differ"])
    #expect(complaints("exePath: /a\nentry: [b]") == ["exePath and entry are the same thing and differ"])
  }

  @Test(
    "0 is the preset's value, with a warning",
    arguments: ["memoryLimitMb", "maxProcesses", "cpuQuota", "maxRuntimeSeconds"])
  func zero(_ key: String) throws {
    let reading = reading("id: a\nimage: i\n\(key): 0\n")
    #expect(reading.policy == (try container("")))
    #expect(reading.problems.map(\.severity) == [.warning])
  }

  @Test("a cpuQuota of at most 1 is taken, with a warning")
  func tinyQuota() {
    let reading = reading("id: a\nimage: i\ncpuQuota: 1\n")
    #expect(reading.policy?.limits.cpus == 0.01)
    #expect(reading.problems.map(\.severity) == [.warning])
    #expect(Policies.aliases.count == 7)
  }

  @Test("dotnet is a native app that starts with dotnet")
  func dotnet() {
    let policy = reading("id: a\nruntime: dotnet\nexePath: ./A.dll\narguments: [x]\n").policy
    #expect(policy?.runtime == .native)
    #expect(policy?.entry == ["dotnet", "./A.dll", "x"])
  }

  @Test("compat: seed brings the older preset's CPU time")
  func seed() throws {
    #expect(try container("compat: seed").limits.maximumCPUTime == .seconds(60))
    #expect(try container("").limits.maximumCPUTime == nil)
    #expect(complaints("compat: other") == ["compat can only be seed"])
  }

  @Test("arguments alone are an error")
  func alone() { #expect(complaints("arguments: [x]") == ["arguments needs exePath"]) }
}
