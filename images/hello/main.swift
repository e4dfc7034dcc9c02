// Says hello, what it may use, and that it is still there. Ends at once on SIGTERM, with a goodbye.
//
// The same static binary is the image's only file and the entry of a native app.
import Glibc

/// Writes one line at once, so that a log shows it when it happens.
func say(_ line: String) {
  print(line)
  fflush(nil)
}

/// The first line of a file, or nil where it cannot be read.
func firstLine(of path: String) -> String? {
  guard let file = fopen(path, "r") else { return nil }
  defer { fclose(file) }
  var bytes = [CChar](repeating: 0, count: 256)
  guard fgets(&bytes, Int32(bytes.count), file) != nil else { return nil }
  return String(decoding: bytes.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// A limit as the cgroup says it; cgroup v2 first, then v1. An app may not see its cgroup at all.
func limit(_ candidates: String...) -> String {
  for path in candidates {
    if let value = firstLine(of: "/sys/fs/cgroup/" + path) { return value }
  }
  return "not visible from here"
}

// SIGTERM is blocked and waited for: no handler, so nothing runs at an awkward moment.
var ending = sigset_t()
sigemptyset(&ending)
sigaddset(&ending, SIGTERM)
sigaddset(&ending, SIGINT)
sigprocmask(SIG_BLOCK, &ending, nil)

var files = rlimit()
getrlimit(__rlimit_resource_t(7), &files)  // RLIMIT_NOFILE

say("hello: I am process \(getpid()), uid \(getuid()), gid \(getgid())")
say("hello: memory limit \(limit("memory.max", "memory/memory.limit_in_bytes"))")
say("hello: task limit   \(limit("pids.max", "pids/pids.max"))")
say("hello: cpu limit    \(limit("cpu.max", "cpu/cpu.cfs_quota_us"))")
say("hello: open files   \(files.rlim_cur)")

var count = 0
while true {
  var pause = timespec(tv_sec: 3, tv_nsec: 0)
  if sigtimedwait(&ending, nil, &pause) > 0 { break }
  count += 1
  say("hello: still here (\(count))")
}
say("hello: goodbye")
exit(0)
