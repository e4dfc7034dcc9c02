import Foundation
import ImageStorage
import Model
import Testing

/// Archives of images made by hand, of the host's static busybox.
private enum Archive {
  static let busybox: [UInt8] = (try? [UInt8](Data(contentsOf: URL(fileURLWithPath: "/usr/bin/busybox")))) ?? []

  /// A layer with a shell in it, and what is added.
  static func shell(_ add: (inout Tar) -> Void = { _ in }) -> [UInt8] {
    var tar = Tar()
    tar.add("bin/", Tar.folder)
    tar.add("bin/busybox", Tar.file, busybox)
    for name in ["sh", "cat", "id", "env", "ls", "pwd", "touch", "sleep"] {
      tar.add("bin/\(name)", Tar.link, to: "busybox")
    }
    tar.add("tmp/", Tar.folder, mode: 0o1777)
    add(&tar)
    return tar.ended
  }

  static func write(_ bytes: [UInt8], _ name: String, _ instance: Instance) throws -> String {
    let path = "\(instance.root)/\(name)"
    try Data(bytes).write(to: URL(fileURLWithPath: path))
    return path
  }
}

private let isRoot = geteuid() == 0 && !Archive.busybox.isEmpty

@Suite("images without an engine", .serialized, .enabled(if: isRoot, "native apps need root, and /usr/bin/busybox"))
struct ImageTests {
  private func with(_ body: (Instance) throws -> Void) throws {
    let instance = try Instance()
    defer { instance.end() }
    try body(instance)
  }

  /// The names and stores that `images` shows.
  private func images(_ instance: Instance) -> [String] {
    instance.run("images", "--format", "json").lines.map {
      "\(($0["tags"]?.arrayValue ?? []).compactMap(\.stringValue).joined(separator: ",")) \($0["store"]?.stringValue ?? "")"
    }.sorted()
  }

  /// What the app `app` sees in /mark. All after the app's name is the command's, so the root is said before.
  private func mark(_ instance: Instance) -> String {
    instance.run("exec", "--root", instance.root, "app", "sh", "-c", "cat /mark").out
  }

  /// What is in a folder of the store.
  private func stored(_ instance: Instance, _ folder: String) -> [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: "\(instance.root)/state/images/\(folder)")) ?? []).sorted()
  }

  @Test("an app runs from a loaded image with its layers, environment, folder and user, and cannot change it")
  func runs() throws {
    let passwd = Array("root:x:0:0::/root:/bin/sh\nweb:x:33:34::/home/web:/bin/sh\n".utf8)
    let lower = Archive.shell {
      $0.add("etc/passwd", Tar.file, passwd)
      $0.add("gone", Tar.file, [1])
      $0.add("folder/low", Tar.file, [1])
      $0.add("bin/raised", Tar.file, Archive.busybox, mode: 0o4755)
      $0.add("home/web/own", Tar.file, Array("mine\n".utf8), mode: 0o600, uid: 33, gid: 34)
    }
    var upper = Tar()
    upper.add(".wh.gone")
    upper.add("folder/.wh..wh..opq")
    upper.add("folder/high", Tar.file, [1])
    let config =
      #"{"Env":["PATH=/bin","COLOUR=blue"],"Entrypoint":["sh","-c"],"Cmd":["sleep 1000"],"WorkingDir":"/home/web","User":"web"}"#
    try with { instance in
      let file = try Archive.write(
        Tar.image([lower, upper.ended], config: config, names: ["made/web:1"]), "a.tar", instance)
      instance.startDaemon()
      #expect(instance.run("load", file).out == "loaded made/web:1\n")
      #expect(images(instance) == ["made/web:1 supervisor"])
      let look = "id -u; id -g; pwd; env; cat own; ls /; ls /folder; ls -l /bin/raised; touch /x || echo read-only"
      for (id, more) in [
        ("read", "entry: ['\(look)']"), ("write", "read_only: false\nentry: ['touch /x /bin/new && ls / /bin']"),
      ] {
        try instance.write(id, "schema: 1\nid: \(id)\nruntime: native\nimage: made/web:1\nuser: image\n\(more)\n")
      }
      // Writing as root of the image, which is nobody's root outside.
      try instance.write(
        "root",
        "schema: 1\nid: root\nruntime: native\nimage: made/web:1\nuser: \"0:0\"\nread_only: false\nentry: ['touch /etc/new /gone; id -u; ls /etc']\n"
      )
      #expect(instance.run("up", "-d", "--progress", "quiet", instance.policies).code == 0)
      for id in ["read", "write", "root"] {
        instance.wait(id) { $0["state"] == "exited" || $0["state"] == "completed" }
      }
      let said = instance.run("logs", "read").out.split(separator: "\n").map(String.init)
      #expect(said.starts(with: ["33", "34", "/home/web"]), "\(said)")
      for line in ["COLOUR=blue", "PATH=/bin", "HOME=/home/web", "mine", "read-only", "high"] {
        #expect(said.contains(line))
      }
      #expect(!said.contains("gone") && !said.contains("low"))
      #expect(said.contains { $0.hasPrefix("-rwxr-xr-x") && $0.hasSuffix("raised") })
      #expect(instance.run("logs", "root").out.contains("new"))
      // What they wrote ended with them.
      for layer in stored(instance, "layers") {
        let folder = "\(instance.root)/state/images/layers/\(layer)"
        for name in ["x", "bin/new", "etc/new"] {
          #expect(!FileManager.default.fileExists(atPath: "\(folder)/\(name)"))
        }
      }
    }
  }

  @Test("what an image calls a volume is memory of the app's that it may write as its owner; `/` as one is refused")
  func volumes() throws {
    let layer = Archive.shell {
      $0.add("kept/", Tar.folder, uid: 33, gid: 34)
      $0.add("kept/from-image", Tar.file, Array("old\n".utf8))
    }
    try with { instance in
      instance.startDaemon()
      func load(_ name: String, _ volumes: String) throws -> Outcome {
        let config = #"{"Volumes":\#(volumes),"Env":["PATH=/bin"],"User":"33:34"}"#
        return instance.run(
          "load", try Archive.write(Tar.image([layer], config: config, names: [name]), "a.tar", instance))
      }
      #expect(try load("made/kept:1", #"{"/kept":{},"/new/deep":{}}"#).code == 0)
      let whole = try load("made/whole:1", #"{"/":{}}"#)
      #expect(whole.code == 2 && whole.err.contains("its whole root a volume"), "\(whole.err)")
      let look =
        "cat /kept/*; ls /new/deep; touch /kept/x && ls /kept; touch /new/deep/x || echo not mine; touch /x || echo read-only"
      try instance.write(
        "app",
        "schema: 1\nid: app\nruntime: native\nimage: made/kept:1\nuser: image\nentry: [sh, -c, '\(look)']\nmem_limit: 64m\n"
      )
      // Twice: what the first wrote is not there for the second.
      for _ in 0..<2 {
        #expect(instance.up().code == 0)
        instance.wait("app") { $0["state"] == "exited" || $0["state"] == "completed" }
        let said = instance.run("logs", "--run", "-1", "app").out
        #expect(
          said.split(separator: "\n").filter { !$0.contains("touch:") }.suffix(5).map(String.init) == [
            "old", "from-image", "x", "not mine", "read-only",
          ], "\(said)")
        #expect(instance.run("rm", "app").code == 0)
      }
    }
  }

  @Test("a container app falls back to its image where no engine answers, and says what is missing before that")
  func fallback() throws {
    try with { instance in
      let file = try Archive.write(
        Tar.image([Archive.shell()], config: #"{"Entrypoint":["/bin/sh","-c"],"Cmd":["echo from the image"]}"#),
        "a.tar", instance)
      try instance.write("back", "schema: 1\nid: back\nimage: test/image:1\nfallback: native\n")
      let early = instance.up()
      #expect(early.code != 0 && early.err.contains("not in the supervisor's own store"), "\(early)")
      #expect(instance.run("load", "--into", "store", file).code == 0)
      #expect(instance.run("up", "-d", "--progress", "quiet", instance.policies).code == 0)
      instance.wait("back") { $0["state"] == "exited" || $0["state"] == "completed" }
      #expect(instance.run("logs", "back").out.contains("from the image\n"))
      #expect(instance.app("back")?["runtime"] == "native")
      let pull = instance.run("pull", "busybox")
      #expect(pull.code != 0 && pull.err.contains("registries"), "\(pull)")
    }
  }

  @Test("a name that means another image is planned as recreate; what an app has is not removed, the rest is")
  func names() throws {
    try with { instance in
      instance.startDaemon()
      for (number, mark) in [(1, "one"), (2, "two")] {
        let layer = Archive.shell { $0.add("mark", Tar.file, Array(mark.utf8)) }
        let config = #"{"Env":["PATH=/bin"],"Entrypoint":["sleep"],"Cmd":["1000"]}"#
        let file = try Archive.write(Tar.image([layer], config: config), "\(number).tar", instance)
        #expect(instance.run("load", file).code == 0)
        if number == 1 {
          try instance.write("app", "schema: 1\nid: app\nruntime: native\nimage: test/image:1\nstop_grace_period: 1s\n")
          #expect(instance.up().code == 0)
          #expect(self.mark(instance) == "one")
        }
      }
      #expect(images(instance) == [" supervisor", "test/image:1 supervisor"])
      let plan = instance.run("plan", instance.policies, "--format", "json")
      #expect(plan.out.contains("recreate") && plan.out.contains("image"), "\(plan)")
      #expect(instance.run("rmi", "test/image:1").code != 0)
      // The unnamed one runs.
      #expect(instance.run("prune", "-y").code == 0)
      #expect(stored(instance, "configs").count == 2)
      #expect(instance.up().code == 0)
      #expect(mark(instance) == "two")
      #expect(instance.run("prune", "-y").code == 0)
      #expect(images(instance) == ["test/image:1 supervisor"] && stored(instance, "configs").count == 1)
      #expect(instance.run("down", "--all", "-y").code == 0)
      #expect(instance.run("rmi", "test/image:1").code == 0)
      #expect(images(instance).isEmpty && stored(instance, "layers").isEmpty)
    }
  }

  @Test("a daemon that is killed while it loads leaves nothing that shows, and the next load works")
  func killed() throws {
    var bytes = [UInt8](repeating: 0, count: 48 << 20)
    for index in bytes.indices where index % 61 == 0 { bytes[index] = UInt8(truncatingIfNeeded: index) }
    var big = Tar()
    for index in 0..<12 { big.add("file\(index)", Tar.file, Array(bytes[(index * 4 << 20)..<((index + 1) * 4 << 20)])) }
    try with { instance in
      let file = try Archive.write(Tar.image([Archive.shell(), big.ended]), "a.tar", instance)
      instance.startDaemon()
      for step in ["members/1", "members/3", "layers", "configs"] {
        let load = try instance.begin(["load", file])
        let staging = "\(instance.root)/state/images/staging"
        eventually("the load is at \(step)") {
          stored(instance, "staging").contains { FileManager.default.fileExists(atPath: "\(staging)/\($0)/\(step)") }
            || !images(instance).isEmpty
        }
        instance.killDaemon()
        _ = load.finish(within: 20)
        instance.startDaemon()
        #expect(stored(instance, "staging").isEmpty)
        let whole = !images(instance).isEmpty
        #expect(
          stored(instance, "layers").count == (whole ? 2 : 0) && stored(instance, "configs").count == (whole ? 1 : 0))
        if whole { #expect(instance.run("rmi", "test/image:1").code == 0) }
      }
      #expect(instance.run("load", file).code == 0)
      #expect(images(instance) == ["test/image:1 supervisor"])
    }
  }

  @Test("a disk that is full is an error that says so, and nothing is kept", arguments: ["64k", "1m", "3m", "5m"])
  func full(_ size: String) throws {
    let instance = try Instance()
    let store = "\(instance.root)/state/images"
    try FileManager.default.createDirectory(atPath: store, withIntermediateDirectories: true)
    #expect(Shell.run(["mount", "-t", "tmpfs", "-o", "size=\(size)", "tmpfs", store]).code == 0)
    defer {
      _ = Shell.run(["umount", "-l", store])
      instance.end()
    }
    let file = try Archive.write(Tar.image([Archive.shell()]), "a.tar", instance)
    instance.startDaemon()
    let load = instance.run("load", file)
    if size == "5m" {
      #expect(load.code == 0, "\(load)")
    } else {
      #expect(load.code == 1 && load.err.contains("room"), "\(load)")
      #expect(images(instance).isEmpty && stored(instance, "staging").isEmpty && stored(instance, "layers").isEmpty)
    }
    #expect(instance.run("daemon", "--stop").code == 0)
    eventually("the daemon is gone") { instance.run("ps").code == 69 }
  }

  @Test(
    "an image whose /dev, /proc, /etc, /tmp or mount target is a link is refused by name, and nothing is made outside")
  func links() throws {
    try with { instance in
      instance.startDaemon()
      let outside = "\(instance.root)/outside"
      try FileManager.default.createDirectory(atPath: outside, withIntermediateDirectories: true)
      for name in ["dev", "proc", "etc", "tmp", "srv", "run"] {
        var tar = Tar()
        if name != "tmp" { tar.add("tmp", Tar.folder) }
        tar.add("bin/busybox", Tar.file, Archive.busybox)
        tar.add(name, Tar.link, to: outside)
        let file = try Archive.write(
          Tar.image([tar.ended], config: #"{"Cmd":["/bin/busybox","sleep","1000"]}"#, names: ["hostile/\(name):1"]),
          "a.tar", instance)
        #expect(instance.run("load", file).code == 0)
        try instance.write(
          name,
          "schema: 1\nid: \(name)\nruntime: native\nimage: hostile/\(name):1\ntmpfs: [\"/srv/in:size=1m\", \"/run/in:size=1m\"]\n"
        )
        instance.run("up", "-d", "--progress", "quiet", "\(instance.policies)/\(name).yaml")
        let row = instance.wait(name) { $0["state"] == "failed" }
        #expect(row?.text.contains("mount /\(name)") == true, "\(name): \(row?.text ?? "")")
      }
      #expect(try FileManager.default.contentsOfDirectory(atPath: outside).isEmpty)
    }
  }

  @Test(
    "what an engine saves runs natively with the same variables, folder and user as in it", arguments: Rig.available)
  func adopts(_ rig: Rig) throws {
    try rig.with { instance in
      let look =
        "id -u; id -g; pwd; env | grep -v -e HOSTNAME -e SHLVL -e TERM -e container= | sort; ls /bin | head -5; ls /"
      for (id, more) in [("there", ""), ("here", "runtime: native\n")] {
        try instance.write(
          id,
          "schema: 1\nid: \(id)\nimage: \(Rig.image)\nuser: image\n\(more)environment: {MODE: test}\nentry: [sh, -c, '\(look)']\n"
        )
      }
      instance.startDaemon()
      let adopt = instance.run("images", "adopt", Rig.image)
      #expect(adopt.code == 0, "\(adopt)")
      #expect(
        images(instance).contains { $0.hasPrefix(Rig.image) && $0.hasSuffix("supervisor") }, "\(images(instance))")
      #expect(images(instance).contains { $0.hasSuffix("engine") })
      #expect(instance.run("up", "-d", "--progress", "quiet", "--engine", instance.engine, instance.policies).code == 0)
      for id in ["there", "here"] { instance.wait(id) { $0["state"] == "exited" || $0["state"] == "completed" } }
      let there = instance.run("logs", "there").out
      let here = instance.run("logs", "here").out
      // Engines make folders of their own at the top: what the image has is the same.
      func facts(_ text: String) -> [Substring] {
        text.split(separator: "\n").filter { !["sys", ".dockerenv", "run", "etc", "sbin", "var"].contains($0) }
      }
      #expect(facts(there) == facts(here), "\(there)---\n\(here)")
      #expect(there.contains("MODE=test"))
    }
  }
}
