import Foundation
import Model
import Testing

@Suite("standard input and terminals of apps", .serialized) struct StreamTests {
  private let reader = "while read x; do echo got $x; done; echo ended; while :; do sleep 1; done"

  @Test(
    "run -i: bytes in and out, the end of input, codes; -t: a terminal of its size", arguments: StreamPlace.available)
  func run(_ place: StreamPlace) throws {
    try place.with([:]) { instance in
      let file = "\(instance.policies)/once.yml"
      try place.app("once", "exit 1", "tmpfs: ['/scratch:size=4m']\n").write(
        toFile: file, atomically: true, encoding: .utf8)
      let bytes = instance.shell(
        "head -c 3000000 /dev/urandom | tee >(md5sum >&2) | supervisor run --rm --quiet -i \(file) cat | md5sum; sleep 0.3"
      )
      #expect(bytes.code == 0 && bytes.out.prefix(32) == bytes.err.prefix(32), "\(bytes)")
      let code = instance.shell("echo 'echo out; echo err >&2; exit 5' | supervisor run --rm -i --quiet \(file) sh")
      #expect(code.code == 5 && code.out == "out\n" && code.err == "err\n", "\(code)")
      let missing = instance.shell("supervisor run --rm -i \(file) /no/such/program </dev/null")
      #expect(missing.code == 127, "\(missing)")
      let cli = "\(Instance.programs)/supervisor --root \(instance.root)"
      let typed = instance.shell(
        "(sleep 4; echo 'echo $((6*7)); stty size; exit 6'; sleep 3) | script -qec 'stty cols 97 rows 33; \(cli) run --rm -it \(file) sh' /dev/null; echo code $?"
      )
      #expect(typed.out.contains("42") && typed.out.contains("code 6") && typed.out.contains("33 97"), "\(typed)")
      #expect(instance.run("ps", "-aq").out.isEmpty, "--rm leaves nothing")
      // Let go of: it goes on, and can be come back to.
      let left = instance.shell(
        "(sleep 4; printf 'echo here\\n'; sleep 1; printf '\\020\\021'; sleep 1) | script -qec '\(cli) run -it --name kept \(file) sh' /dev/null; echo code $?"
      )
      #expect(left.out.contains("left kept running") && left.out.contains("code 0"), "\(left)")
      #expect(instance.app("kept")?["state"] == "running")
      let back = instance.shell(
        "(sleep 2; printf 'echo back; exit 3\\n'; sleep 2) | script -qec '\(cli) attach kept' /dev/null; echo code $?")
      #expect(back.out.contains("back"), "\(back)")
      instance.wait("kept") { $0["exit_code"] == 3 }
    }
  }

  @Test(
    "attach types into an app whose policy opens its input, two at once; a caller that is killed harms nothing",
    arguments: StreamPlace.available)
  func attach(_ place: StreamPlace) throws {
    try place.with([
      "open": place.app("open", reader, "stdin_open: true\nrestart: unless-stopped\n"),
      "closed": place.app("closed", reader),
    ]) { instance in
      instance.wait("open") { $0["state"] == "running" }
      instance.wait("closed") { $0["state"] == "running" }
      let cli = "\(Instance.programs)/supervisor --root \(instance.root)"
      let two = instance.shell(
        "(sleep 2; echo one; sleep 5) | timeout -s INT 8 \(cli) attach open > \(instance.policies)/first & "
          + "(sleep 4; echo two; sleep 3) | timeout -s INT 8 \(cli) attach open; wait; echo; cat \(instance.policies)/first"
      )
      let halves = two.out.components(separatedBy: "\n\n")
      #expect(halves.count == 2 && halves.allSatisfy { $0.contains("got one") && $0.contains("got two") }, "\(two)")
      let killed = try instance.begin(
        ["attach", "open"], prefix: ["/bin/bash", "-c", "exec \"$@\" < <(sleep 100)", "bash"])
      usleep(1_500_000)
      killed.kill()
      _ = killed.finish(within: 10)
      let again = instance.shell("(sleep 1; echo three; sleep 3) | timeout -s INT 6 \(cli) attach open")
      #expect(again.out.contains("got three") && !again.out.contains("ended"), "\(again)")
      #expect(instance.app("open")?["restarts"] == 0 && instance.app("open")?["state"] == "running")
      // It began with its input at its end.
      eventually("the other one has no input") { instance.run("logs", "closed").out == "ended\n" }
      let output = instance.shell("echo lost | timeout -s INT 3 \(cli) attach closed; supervisor logs closed")
      #expect(!output.out.contains("lost"), "\(output)")
      // A daemon that takes it over can still be typed through.
      kill(try #require(instance.daemon), SIGKILL)
      instance.startDaemon()
      instance.wait("open") { $0["state"] == "running" }
      let over = instance.shell("(sleep 1; echo four; sleep 3) | timeout -s INT 6 \(cli) attach open")
      #expect(over.out.contains("got four"), "\(over)")
    }
  }

  @Test(
    "an app that sits at a terminal has the size of who is attached, and outlives a terminal that vanishes",
    arguments: StreamPlace.available)
  func terminal(_ place: StreamPlace) throws {
    let script = "while read x; do stty size; echo got $x; done"
    try place.with(["t": place.app("t", script, "stdin_open: true\ntty: true\nrestart: unless-stopped\n")]) {
      instance in
      instance.wait("t") { $0["state"] == "running" }
      let cli = "\(Instance.programs)/supervisor --root \(instance.root)"
      let typed = instance.shell(
        "(sleep 3; echo hi; sleep 2; printf '\\020\\021'; sleep 1) | script -qec 'stty cols 91 rows 31; \(cli) attach t' /dev/null; echo code $?"
      )
      #expect(typed.out.contains("31 91") && typed.out.contains("got hi") && typed.out.contains("code 0"), "\(typed)")
      #expect(instance.run("logs", "t").out.contains("got hi"))
      // What is typed now is echoed, and more of that than a log keeps.
      _ = instance.shell(
        "script -qec '\(cli) attach t' /dev/null </dev/zero >/dev/null & P=$!; sleep 3; kill -9 $P; wait")
      eventually("it can be typed into again") {
        instance.shell(
          "(sleep 1; echo more; sleep 2; printf '\\020\\021'; sleep 1) | script -qec '\(cli) attach t' /dev/null"
        ).out.contains("got more")
      }
      #expect(instance.app("t")?["restarts"] == 0)
    }
  }
}
