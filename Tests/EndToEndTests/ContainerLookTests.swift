import Foundation
import Model
import Testing

@Suite(
  "looking into containers and touching them", .serialized,
  .enabled(if: !Rig.available.isEmpty, "no engine: SUPERVISOR_TEST_DOCKER_SOCK and _PODMAN_SOCK are not set"))
struct ContainerLookTests {
  @Test("exec: streams, codes, a terminal; a caller that is killed takes its command along", arguments: Rig.available)
  func exec(_ rig: Rig) throws {
    try rig.with { instance in
      try instance.write("a", ContainerTests.app("a", "while :; do sleep 1; done"))
      #expect(instance.up().code == 0)
      let plain = instance.shell(
        "supervisor exec -e WORD=said -w /tmp a sh -c 'echo $WORD in $(pwd); echo err >&2; exit 9'")
      #expect(plain.code == 9 && plain.out == "said in /tmp\n" && plain.err == "err\n", "\(plain)")
      let both = instance.shell("head -c 3000000 /dev/zero | supervisor exec -i a cat | wc -c")
      #expect(both.out.trimmingCharacters(in: .whitespacesAndNewlines) == "3000000", "\(both)")
      #expect(instance.shell("supervisor exec a no-such-program").code == 127)
      #expect(instance.shell("supervisor exec -u 0 a id").code == 126)
      #expect(instance.shell("supervisor exec --timeout 500ms a sleep 60").code == 124)
      let cli = "\(Instance.programs)/supervisor --root \(instance.root)"
      let typed = instance.shell(
        "(sleep 2; echo 'echo $((6*7)); exit 6'; sleep 2) | script -qec '\(cli) exec -it a sh' /dev/null; echo code $?")
      #expect(typed.out.contains("42") && typed.out.contains("code 6"), "\(typed)")
      _ = instance.shell(
        "\(cli) exec a sh -c 'trap \"\" HUP; echo $$ > /tmp/mark; while :; do sleep 1; done' & P=$!; sleep 2; kill -9 $P; wait"
      )
      let left = instance.shell("sleep 2; supervisor exec a sh -c 'ps | grep -c \"trap ..[ ]HUP\"'")
      #expect(left.out == "0\n", "\(left)")
    }
  }

  @Test("run makes a container of an image, and stats and the black box know what it did", arguments: Rig.available)
  func runAndNumbers(_ rig: Rig) throws {
    try rig.with { instance in
      try instance.write("a", ContainerTests.app("a", "echo said; exit 3", "restart: 'no'\n"))
      try instance.write("b", ContainerTests.app("b", "while :; do :; done", "cpus: 0.5\n"))
      instance.run("up", "-d", "--progress", "quiet", "--engine", instance.engine, instance.policies)
      instance.wait("a") { $0["exit_code"] == 3 }
      instance.wait("b") { $0["state"] == "running" }
      let once = instance.shell("supervisor run --rm \(Rig.image) sh -c 'echo hello; exit 5'")
      #expect(once.code == 5 && once.out == "hello\n" && once.err.contains("memory at most"), "\(once)")
      let row = try #require(instance.run("stats", "--no-stream", "--format", "json").lines.first { $0["name"] == "b" })
      #expect(
        (row["cpu_percent"]?.numberValue ?? 0) > 20 && (row["throttled_percent"]?.numberValue ?? 0) > 20, "\(row.text)")
      eventually("what it wrote last is kept") {
        let exit = instance.run("explain", "a", "--exit", "-1", "--format", "json").lines.first
        return exit?["exit_code"] == 3 && exit?["output"] == "said\n"
      }
      #expect(instance.run("logs", "a", "--run", "-1").out == "said\n")
      #expect(
        instance.run("top", "b", "--format", "json").lines.contains {
          $0["command"]?.stringValue?.contains("sh") == true
        })
    }
  }
}
