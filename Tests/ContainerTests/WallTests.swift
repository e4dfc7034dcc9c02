import EngineAPI
import Glibc
import Linux
import Model
import Testing

@testable import Cgroups
@testable import ContainerHosting

@Suite(
  "what a container may and may not",
  .enabled(if: !Rig.available.isEmpty, "no engine: SUPERVISOR_TEST_DOCKER_SOCK and _PODMAN_SOCK are not set"))
struct WallTests {
  @Test("every limit is in the cgroup files of the app's own parent, and holds from there", arguments: Rig.available)
  func limits(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      var policy = try place.policy("limits", "exec sleep 1000")
      policy.limits.memory = .mebibytes(96)
      policy.limits.memoryAndSwap = .mebibytes(96)
      policy.limits.memoryReservation = .mebibytes(48)
      policy.limits.cpus = 0.5
      policy.limits.cpuset = "0"
      policy.limits.pids = 33
      policy.limits.rlimits = [.init(name: "nofile", soft: 300, hard: 400)]
      policy.limits.oomScoreAdjustment = 700
      policy.priority = .high
      let running = try await host.run(policy)
      #expect(running.facts.missing == [])
      let reports = try await host.host.enforcement(running.instance, running.launch)
      for name in ["mem_limit", "memswap_limit", "mem_reservation", "cpus", "cpuset", "pids_limit", "cpu_shares"] {
        #expect(reports.first { $0.name == name }?.status == .enforced, "\(name)")
      }
      #expect(reports.filter { $0.status == .missing } == [])
      let group = AppCgroup(
        place.settings.hierarchy, parent: place.settings.layout.cgroupParent, app: policy.id, kind: .container)
      let pids = try #require(group.folder(.pids))
      #expect(try File.text("\(pids.path)/pids.max") == "33\n")
      let leaf = try #require(try AppCgroup.children(pids.path).first { !$0.hasSuffix("conmon") })
      #expect(try File.text("\(leaf)/pids.max") == "33\n")
      let facts = try #require(ProcessFacts(running.facts.pid))
      #expect(facts.limits["Max open files"]?.soft == "300" && facts.limits["Max open files"]?.hard == "400")
      #expect(facts.limits["Max core file size"]?.hard == "0")
      #expect(facts.oomScoreAdjustment == 700)
      #expect(try await host.host.usage(running.instance).memoryLimit == .mebibytes(96))
      try await host.host.kill(running.instance)
      _ = try await host.end(running)
      try await host.host.remove(running.instance)
      #expect(!group.exists)
    }
  }

  @Test(
    "an app has a uid of its own, no capability, a filter, no way to gain, and a root it cannot write",
    arguments: Rig.available)
  func walls(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      let script = """
        cat /proc/self/status | grep -E '^(Uid|Gid|CapEff|CapBnd|NoNewPrivs|Seccomp):'
        for folder in /run /var/tmp; do touch $folder/x 2>/dev/null && echo $folder is writable; done
        touch /x 2>&1; touch /etc/x 2>&1; touch /tmp/x && echo tmp-writable
        cat /proc/keys 2>/dev/null | wc -l; ls /sys/firmware 2>/dev/null | wc -l
        echo 1 > /proc/sys/kernel/hostname 2>&1
        cp /bin/busybox /tmp/b 2>/dev/null; chmod 4755 /tmp/b 2>&1; /tmp/b true 2>&1
        unshare -r true 2>&1; mount -t tmpfs x /tmp 2>&1; chroot / true 2>&1
        """
      let running = try await host.run(place.policy("walls", script), uidBase: 0x30_0000)
      _ = try await host.end(running)
      let output = try await host.output(running)
      let uid = 0x30_0000 + 1000
      #expect(output.contains("Uid:\t\(uid)\t\(uid)\t\(uid)\t\(uid)"))
      #expect(output.contains("CapEff:\t0000000000000000") && output.contains("CapBnd:\t0000000000000000"))
      #expect(output.contains("NoNewPrivs:\t1") && output.contains("Seccomp:\t2"))
      #expect(output.contains("touch: /x: Read-only file system"))
      #expect(output.contains("tmp-writable"))
      #expect(!output.contains("is writable"), "an engine's own idea of what is writable under a read-only root")
      #expect(output.contains("chmod: /tmp/b: Operation not permitted"))
      #expect(output.contains("/tmp/b: Permission denied"), "tmp is noexec")
      #expect(output.contains("unshare") && output.contains("mount: "))
      #expect(!output.contains("b: applet"))
    }
  }

  @Test(
    "the filter answers each forbidden call as it should, tricks with upper halves and other call tables included",
    arguments: Rig.available)
  func filter(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let folder = "\(place.root)/probe"
      _ = try Folder(making: folder)
      try Folder(opening: folder).replace("probe.c", with: Array(Self.probe.utf8))
      let built = system(
        "cd '\(folder)' && for cc in clang gcc cc; do $cc -static -O1 -w -o probe probe.c 2>/dev/null && exit 0; done; exit 1"
      )
      try #require(built == 0, "a C compiler and libc.a are needed")
      let host = try place.host()
      var policy = try place.policy("filter", "")
      policy.entry = ["/probe/probe"]
      policy.mounts = [Mount(target: "/probe", kind: .bind(source: folder), readOnly: true)]
      let (report, output) = try await host.complete(policy)
      #expect(report.cause == .code(0), "\(output)")
      #expect(output.hasSuffix("done\n") && !output.contains("BAD"), "\(output)")
    }
  }

  private static let probe = #"""
    #define _GNU_SOURCE
    #include <errno.h>
    #include <fcntl.h>
    #include <signal.h>
    #include <stdio.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <sys/wait.h>
    #include <unistd.h>
    static void is(const char *what, long got, int wanted) {
      int found = got < 0 ? errno : 0;
      if (found != wanted) printf("BAD %s: %d, not %d\n", what, found, wanted);
      fflush(stdout);
    }
    int main(void) {
      is("clone3", syscall(435, 0, 0), ENOSYS);
      is("openat2", syscall(437, AT_FDCWD, "/", 0, 0), ENOSYS);
      is("newer than known", syscall(1000), ENOSYS);
      is("unshare user", syscall(SYS_unshare, 0x10000000), EPERM);
      is("clone newuser", syscall(SYS_clone, 0x10000000 | SIGCHLD, 0, 0, 0, 0), EPERM);
      is("vsock", syscall(SYS_socket, 40, 1, 0), EAFNOSUPPORT);
      is("alg", syscall(SYS_socket, 38, 5, 0), EAFNOSUPPORT);
      is("packet", syscall(SYS_socket, 17, 3, 0), EAFNOSUPPORT);
      is("vsock with an upper half", syscall(SYS_socket, 40L | 1L << 32, 1, 0), EAFNOSUPPORT);
      is("inet", syscall(SYS_socket, 2, 1, 0), 0);
      is("unix", syscall(SYS_socket, 1, 1, 0), 0);
      is("route", syscall(SYS_socket, 16, 3, 0), 0);
      is("netfilter", syscall(SYS_socket, 16, 3, 12), EPERM);
      is("TIOCSTI", syscall(SYS_ioctl, 0, 0x5412L, "x"), EPERM);
      is("TIOCSTI with an upper half", syscall(SYS_ioctl, 0, 0x5412L | 1L << 40, "x"), EPERM);
      is("TIOCLINUX", syscall(SYS_ioctl, 0, 0x541CL, "x"), EPERM);
      is("TCGETS", syscall(SYS_ioctl, 99, 0x5401L, 0), EBADF);
      is("io_uring", syscall(425, 8, 0), EPERM);
      is("userfaultfd", syscall(323, 0), EPERM);
      is("keyctl", syscall(SYS_keyctl, 0, 0, 0, 0, 0), EPERM);
      is("bpf", syscall(SYS_bpf, 0, 0, 0), EPERM);
      is("handle", syscall(SYS_name_to_handle_at, AT_FDCWD, "/", 0, 0, 0), EPERM);
      is("personality", syscall(SYS_personality, 0x40000), EPERM);
      is("set-uid file", open("/tmp/suid", O_CREAT | O_WRONLY, 04755), EPERM);
      is("file", open("/tmp/file", O_CREAT | O_WRONLY, 0755), 0);
      is("set-uid mode", chmod("/tmp/file", 02755), EPERM);
    #ifdef __x86_64__
      pid_t child = fork();
      if (child == 0) {
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
        _exit(0);
      }
      int status = 0;
      waitpid(child, &status, 0);
      if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) printf("BAD int 0x80: status %x\n", status);
      child = fork();
      if (child == 0) {
        syscall(0x40000000 | 39);
        _exit(0);
      }
      waitpid(child, &status, 0);
      if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) printf("BAD x32: status %x\n", status);
    #endif
      printf("done\n");
      return 0;
    }
    """#

  @Test(
    "an image that says root, a healthcheck, a label of ours and a volume gets none of it", arguments: Rig.available)
  func hostileImage(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let folder = "\(place.root)/context"
      _ = try Folder(making: folder)
      let dockerfile = """
        FROM \(Rig.image)
        USER 0:0
        HEALTHCHECK --interval=1s CMD /bin/false
        LABEL io.appsupervisor.instance=\(place.settings.layout.id) io.appsupervisor.nonce=mine
        VOLUME /stolen
        ENTRYPOINT ["/bin/sh", "-c", "echo stolen"]
        WORKDIR /nowhere
        """
      try Folder(opening: folder).replace("Dockerfile", with: Array(dockerfile.utf8))
      let host = try place.host()
      var policy = try place.policy("hostile", "")
      policy.image = .build(
        context: folder, dockerfile: "Dockerfile", arguments: [:], tag: "appsup-test/hostile-\(rig):\(getpid())")
      policy.entrypoint = ["/bin/sh", "-c", "id -u; sleep 1000"]
      policy.entry = []
      let running = try await host.run(policy)
      let details = try await place.engine.inspectContainer(running.instance.handle)
      #expect(details.user == "\(0x20_0000 + 1000):\(0x20_0000 + 1000)")
      #expect(details.labels["io.appsupervisor.nonce"] == running.launch.nonce)
      #expect(details.state.health == nil)
      #expect(ProcessFacts(running.facts.pid)?.bounding == 0)
      // A container somebody else makes of such an image carries our label, and is not taken for one of ours.
      let (found, removed) = try await host.host.adopt([(running.instance, running.launch)])
      #expect(found.count == 1 && removed == [])
      // No disk without limits: what the image calls a volume is empty and read-only.
      #expect(details.mounts.allSatisfy { $0.kind != "volume" })
      try await host.host.kill(running.instance)
      _ = try await host.end(running)
      #expect(try await host.output(running) == "\(0x20_0000 + 1000)\n")
      try await host.host.remove(running.instance)
      _ = try? await place.engine.removeImage("appsup-test/hostile-\(rig):\(getpid())", force: true)
    }
  }

  @Test("capabilities that are added are there and no others; port 80 needs none", arguments: Rig.available)
  func capabilities(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      var policy = try place.policy("caps", "grep CapBnd /proc/self/status")
      policy.capabilities.add = ["CHOWN", "NET_BIND_SERVICE"]
      let (report, output) = try await host.complete(policy)
      #expect(report.succeeded)
      #expect(output == "CapBnd:\t0000000000000401\n")
      let server = try place.policy("port", "nc -l -p 80 & sleep 0.2; echo hi | nc 127.0.0.1 80; echo $?")
      #expect(try await host.complete(server).output.hasSuffix("0\n"))
    }
  }

  @Test(
    "a limit this host cannot hold is refused before anything is made, or said under degrade", arguments: Rig.available)
  func degrade(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      var policy = try place.policy("degrade", "exec sleep 1000")
      policy.limits.block.weight = 500
      guard
        !AppCgroup(place.settings.hierarchy, parent: "/x", app: policy.id, kind: .container)
          .unsupported(policy.limits).isEmpty
      else { return }
      await expectFailure(.refused, saying: "blkio_config.weight", "degrade") {
        _ = try await host.host.prepare(policy) { _ in }
      }
      policy.enforcement = .degrade
      let running = try await host.run(policy)
      #expect(running.facts.missing.count == 1)
      #expect(running.facts.missing.first?.contains("blkio_config.weight") == true)
    }
  }

  @Test("a limit changed behind our back shows; a rule about a block device is written", arguments: Rig.available)
  func tampering(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      let running = try await host.run(place.policy("tamper", "exec sleep 1000"))
      let group = AppCgroup(
        place.settings.hierarchy, parent: place.settings.layout.cgroupParent, app: running.instance.app,
        kind: .container)
      let pids = try #require(group.folder(.pids))
      try File.write("\(pids.path)/pids.max", "max")
      let reports = try await host.host.enforcement(running.instance, running.launch)
      #expect(reports.filter { $0.status == .missing }.map(\.name) == ["pids_limit"])
    }
  }

  @Test("users of the host, our labels and foreign volumes are refused", arguments: Rig.available)
  func refusals(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      var policy = try place.policy("refused", "")
      policy.user = .given(uid: 1000, gid: 1000)
      await expectFailure(.refused, saying: "1000", "unsafe_host_uids") {
        _ = try await host.host.prepare(policy) { _ in }
      }
      policy.user = .image
      policy.mounts = [Mount(target: "/x", kind: .bind(source: place.root))]
      await expectFailure(.refused) { _ = try await host.host.prepare(policy) { _ in } }
      policy.mounts = [Mount(target: "/x", kind: .bind(source: place.rig.socket ?? ""))]
      await expectFailure(.refused, saying: "socket") { _ = try await host.host.prepare(policy) { _ in } }
      policy.mounts = [Mount(target: "/x", kind: .volume(name: "theirs", external: true))]
      await expectFailure(.refused, saying: "theirs", "external_volumes") {
        _ = try await host.host.prepare(policy) { _ in }
      }
      policy.mounts = []
      policy.labels = ["io.appsupervisor.app": "other"]
      await expectFailure(.refused, saying: "label") { _ = try await host.host.prepare(policy) { _ in } }
      policy.labels = [:]
      policy.workingDirectory = "/proc/self/fd/8"
      await expectFailure(.refused, saying: "working directory") { _ = try await host.host.prepare(policy) { _ in } }
    }
  }
}
