import Foundation
import Model
import Testing

/// Devices, and folders whose owner appears as the app.
@Suite(.serialized, .enabled(if: getuid() == 0, "devices and mounts are root's to give")) struct HandoverTests {
  /// One that hosts have and that does nothing when it is opened.
  private static let device = ["/dev/hwrng", "/dev/rtc0", "/dev/ttyUSB0"].first {
    FileManager.default.fileExists(atPath: $0)
  }

  private static func number(_ path: String) -> String {
    Shell.run(["stat", "-L", "-c", "%t:%T", path]).out.split(separator: "\n").first.map(String.init) ?? "none"
  }

  private static func visible(_ instance: Instance) -> String {
    Shell.run(["grep", "\(instance.root)/run/", "/proc/self/mountinfo"]).out
  }

  private static func devices(_ instance: Instance, _ start: String) throws {
    let device = try #require(Self.device)
    try FileManager.default.createDirectory(atPath: "\(instance.root)/config", withIntermediateDirectories: true)
    try "devices_allowed: {keen: [\(device)], keener: [/dev/kmsg]}\n"
      .write(toFile: "\(instance.root)/config/config.yaml", atomically: true, encoding: .utf8)
    let script =
      "stat -c '%a %t:%T' /dev/gadget; ( : </dev/gadget ) && echo reads; ( : >/dev/gadget ) 2>/dev/null && echo writes; "
      + "mknod /tmp/n c 1 11 2>/dev/null && ( : </tmp/n ) 2>/dev/null && echo escaped; ls /dev; echo done; exec sleep 1000"
    func app(_ id: String, _ device: String) -> String {
      "id: \(id)\n\(start)entry: [/bin/sh, -c, \"\(script)\"]\ndevices: [\"\(device)\"]\n"
    }
    try instance.write("keen", app("keen", "\(device):/dev/gadget:r"))
    let up = instance.up()
    #expect(up.code == 0, "\(up.err)")
    eventually("it has tried") { instance.run("logs", "keen").out.contains("done") }
    let said = instance.run("logs", "keen").out.split(separator: "\n").map(String.init)
    #expect(said.contains("400 \(Self.number(device))"), "\(said)")
    #expect(said.contains("reads") && !said.contains("writes") && !said.contains("escaped"), "\(said)")
    #expect(Self.visible(instance).isEmpty)

    for (id, device) in [("other", "\(device):/dev/gadget"), ("keener", "/dev/kmsg:/dev/gadget")] {
      let path = try instance.write(id, app(id, device))
      let refused = instance.run("up", "-d", "--wait", "--progress", "quiet", path)
      #expect(refused.code != 0 && refused.err.contains("dev"), "\(id): \(refused.err)")
      try FileManager.default.removeItem(atPath: path)
    }
    // Taken away with the policy's line.
    try instance.write("keen", "id: keen\n\(start)entry: [/bin/sh, -c, \"\(script)\"]\n")
    #expect(instance.up().code == 0)
    eventually("it has tried again") { instance.run("logs", "--run", "-1", "keen").out.contains("done") }
  }

  @Test(
    "a native app has the device that config.yaml lists for it, as far as it says, and no other",
    .enabled(if: device != nil))
  func nativeDevice() throws {
    let instance = try Instance()
    defer { instance.end() }
    try Self.devices(instance, "")
  }

  @Test("so has a container", .enabled(if: device != nil), arguments: Rig.available)
  func containerDevice(_ rig: Rig) throws {
    try rig.with { try Self.devices($0, "image: \(Rig.image)\nstop_grace_period: 1s\n") }
  }

  private static func owners(_ instance: Instance, _ start: String) throws {
    let folder = "\(instance.root)-files"
    try FileManager.default.createDirectory(
      atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try "old".write(toFile: "\(folder)/old", atomically: true, encoding: .utf8)
    try "strange".write(toFile: "\(folder)/strange", atomically: true, encoding: .utf8)
    for name in ["", "/old"] { chown(folder + name, 61_001, 61_002) }
    chmod("\(folder)/strange", 0o600)
    let script =
      "test $(stat -c %u /files) = $(id -u) && echo mine; cat /files/old; echo; echo new >/files/new && echo made; "
      + "cat /files/strange 2>/dev/null; echo done; exec sleep 1000"
    func app(_ more: String) -> String {
      "id: a\n\(start)entry: [/bin/sh, -c, \"\(script)\"]\nvolumes: [{type: bind, source: \(folder), target: /files, \(more)}]\n"
    }
    try instance.write("a", app("owner: app"))
    let up = instance.up()
    #expect(up.code == 0, "\(up.err)")
    eventually("it has tried") { instance.run("logs", "a").out.contains("done") }
    #expect(instance.run("logs", "a").out == "mine\nold\nmade\ndone\n")
    var status = stat()
    #expect(stat("\(folder)/new", &status) == 0 && status.st_uid == 61_001 && status.st_gid == 61_002)
    #expect(Self.visible(instance).isEmpty)

    // Root's own, to be written: files of root's would come of it.
    chown(folder, 0, 0)
    let refused = instance.run("restart", "a")
    let row = instance.wait("a") { $0["state"] != "running" || $0["reason"] != .null }
    #expect(refused.code != 0 || row?["state"] != "running", "\(refused.err)")
    try instance.write("a", app("owner: app, read_only: true"))
    let readOnly = instance.up()
    #expect(readOnly.code == 0, "\(readOnly.err)")
  }

  @Test("owner: app shows a native app its owner's files as its own, and what it makes belongs to the owner")
  func nativeOwner() throws {
    let instance = try Instance()
    defer { instance.end() }
    try Self.owners(instance, "")
  }

  @Test("and a container", arguments: Rig.available)
  func containerOwner(_ rig: Rig) throws {
    try rig.with { try Self.owners($0, "image: \(Rig.image)\nstop_grace_period: 1s\n") }
  }
}
