import Foundation
import Model
import Testing

extension Instance {
  /// Begins to debug an app with a shell script, and returns.
  fileprivate func beginDebug(_ app: String, _ script: String) throws -> Started {
    try Started(
      ["\(Self.programs)/supervisor", "--root", root, "debug", app, "sh", "-c", script],
      ProcessInfo.processInfo.environment)
  }
}

@Suite("an operator's command in the place of an app", .serialized) struct DebugTests {
  private let sleeper = "while :; do sleep 1; done"

  @Test(
    "debug: the app's user, files and limits; the command's code; then the app is there again",
    arguments: StreamPlace.available)
  func running(_ place: StreamPlace) throws {
    let more = "mem_limit: 48m\nvolumes: [{type: volume, source: own, target: /own}]\nrestart: always\n"
    try place.with(["a": place.app("a", "echo kept > /own/x; \(sleeper)", more)]) { instance in
      instance.wait("a") { $0["state"] == "running" }
      let own = instance.shell("supervisor exec a id -u").out
      let before = try #require(instance.app("a")?["generation"]?.integerValue)
      let inside = instance.shell("echo 'cat /own/x; id -u; exit 7' | supervisor debug -i a sh")
      #expect(inside.code == 7 && inside.out == "kept\n\(own)", "\(inside)")
      instance.wait("a") { $0["state"] == "running" && ($0["generation"]?.integerValue ?? 0) > before + 1 }
      #expect(instance.app("a")?["restarts"] == 0)
      let missing = instance.shell("supervisor debug a no-such-program")
      #expect(missing.code == 127, "\(missing)")
      instance.wait("a") { $0["state"] == "running" }
      // Its input ends as the caller's does, and its streams are two.
      let streams = instance.shell("echo typed | supervisor debug -i a sh -c 'cat; echo err >&2'")
      #expect(streams.code == 0 && streams.out == "typed\n" && streams.err == "err\n", "\(streams)")
      let held = try instance.beginDebug("a", "while :; do sleep 0.1; done")
      let row = instance.wait("a") { $0["debug"] == true && $0["status"]?.stringValue?.contains("(debug)") == true }
      #expect(row?["memory_limit"] == 50_331_648)
      held.kill()
      _ = held.finish(within: 10)
      instance.wait("a") { $0["state"] == "running" && $0["debug"] == false }
      // How it ended is nobody's run.
      #expect(instance.run("explain", "a", "--exit", "-1", "--format", "json").lines.first?["exit_code"] != 7)
    }
  }

  @Test(
    "debug of an app that crashes, has failed or is stopped; afterwards it is as it was wanted",
    arguments: StreamPlace.available)
  func broken(_ place: StreamPlace) throws {
    try place.with([
      "loop": place.app(
        "loop", "exit 3", "restart: always\nrestart_policy: {delay: 300ms, max_delay: 300ms, max_attempts: 1000}\n"),
      "failed": place.app("failed", "exit 4", "restart: on-failure:1\nrestart_policy: {delay: 0s}\n"),
      "stopped": place.app("stopped", sleeper),
    ]) { instance in
      instance.wait("failed") { $0["state"] == "failed" }
      #expect(instance.run("stop", "-t", "1s", "stopped").code == 0)
      for (name, code) in [("loop", 11), ("failed", 12), ("stopped", 13)] {
        let inside = instance.shell("supervisor debug \(name) sh -c 'echo in; exit \(code)'")
        #expect(inside.code == Int32(code) && inside.out == "in\n", "\(name) \(inside)")
      }
      let restarts = try #require(instance.app("loop")?["restarts"]?.integerValue)
      instance.wait("loop") { ($0["restarts"]?.integerValue ?? 0) > restarts }
      instance.wait("failed") { $0["state"] == "failed" }
      instance.wait("stopped") { $0["state"] == "exited" && $0["wanted"] == "stopped" }
      // A daemon that comes later sees it so as well.
      kill(try #require(instance.daemon), SIGKILL)
      instance.startDaemon()
      instance.wait("failed") { $0["state"] == "failed" }
      instance.wait("stopped") { $0["state"] == "exited" && $0["wanted"] == "stopped" }
    }
  }

  @Test(
    "a terminal for debug; when it, the caller or the daemon vanishes, the app comes back",
    arguments: StreamPlace.available)
  func vanishing(_ place: StreamPlace) throws {
    try place.with(["a": place.app("a", sleeper, "restart: unless-stopped\n")]) { instance in
      instance.wait("a") { $0["state"] == "running" }
      let cli = "\(Instance.programs)/supervisor --root \(instance.root)"
      let typed = instance.shell(
        "(sleep 4; echo 'echo $((6*7)); stty size; exit 6'; sleep 3) | script -qec 'stty cols 97 rows 33; \(cli) debug a' /dev/null; echo code $?"
      )
      #expect(typed.out.contains("42") && typed.out.contains("code 6") && typed.out.contains("33 97"), "\(typed)")
      instance.wait("a") { $0["state"] == "running" && $0["debug"] == false }
      let gone = try instance.beginDebug("a", "while :; do sleep 1; done")
      instance.wait("a") { $0["state"] == "running" && $0["debug"] == true }
      gone.kill()
      _ = gone.finish(within: 10)
      instance.wait("a") { $0["state"] == "running" && $0["debug"] == false }
      // The daemon goes, and the command with it as soon as there is another.
      let started = try instance.beginDebug("a", "while :; do sleep 1; done")
      instance.wait("a") { $0["state"] == "running" && $0["debug"] == true }
      kill(try #require(instance.daemon), SIGKILL)
      #expect(started.finish(within: 30).code == 125)
      instance.startDaemon()
      instance.wait("a", seconds: 40) { $0["state"] == "running" && $0["debug"] == false }
      #expect(instance.shell("supervisor exec a true").code == 0)
      // A stop ends it, and holds.
      let other = try instance.beginDebug("a", "while :; do sleep 1; done")
      instance.wait("a") { $0["debug"] == true && $0["state"] == "running" }
      #expect(instance.shell("supervisor debug a true").code == 125, "one at a time")
      #expect(instance.run("stop", "a").code == 0)
      _ = other.finish(within: 30)
      instance.wait("a") { $0["state"] == "exited" && $0["debug"] == false }
    }
  }
}
