/// The calls themselves. The list is what the engines' own default allows today, without what an app of ours never needs:
/// the 32-bit calls (their architecture is not allowed at all), `vmsplice`, `memfd_secret`, `modify_ldt`, handles of files
/// (`name_to_handle_at` finds files outside the root), io_uring and userfaultfd (each a long list of kernel holes).
enum SeccompTable {
  /// What any program may do.
  static let always = [
    "accept", "accept4", "adjtimex", "bind", "brk", "cachestat", "capget", "capset", "chdir", "clock_adjtime",
    "clock_getres", "clock_gettime", "clock_nanosleep", "close", "close_range", "connect", "copy_file_range", "dup",
    "dup3", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "eventfd2", "execve", "execveat", "exit",
    "exit_group", "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchown", "fchownat", "fcntl",
    "fdatasync", "fgetxattr", "flistxattr", "flock", "fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync",
    "ftruncate", "futex", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "getcpu",
    "getcwd", "getdents64", "getegid", "geteuid", "getgid", "getgroups", "getitimer", "getpeername", "getpgid",
    "getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresuid", "getrlimit", "getrusage", "getsid",
    "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getxattr", "getxattrat", "inotify_add_watch",
    "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup",
    "io_submit", "ioprio_get", "ioprio_set", "kill", "landlock_add_rule", "landlock_create_ruleset",
    "landlock_restrict_self", "lgetxattr", "linkat", "listen", "listmount", "listxattr", "listxattrat", "llistxattr",
    "lremovexattr", "lseek", "lsetxattr", "madvise", "membarrier", "memfd_create", "mincore", "mkdirat", "mlock",
    "mlock2", "mlockall", "mmap", "mprotect", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive",
    "mq_timedsend", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock",
    "munlockall", "munmap", "nanosleep", "newfstatat", "pidfd_open", "pidfd_send_signal", "pipe2", "pkey_alloc",
    "pkey_free", "pkey_mprotect", "ppoll", "prctl", "pread64", "preadv", "preadv2", "prlimit64", "process_mrelease",
    "process_vm_readv", "process_vm_writev", "pselect6", "ptrace", "pwrite64", "pwritev", "pwritev2", "read",
    "readahead", "readlinkat", "readv", "recvfrom", "recvmmsg", "recvmsg", "remap_file_pages", "removexattr",
    "removexattrat", "renameat", "renameat2", "restart_syscall", "rseq", "rt_sigaction", "rt_sigpending",
    "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "semctl", "semget", "semop", "semtimedop", "sendfile",
    "sendmmsg", "sendmsg", "sendto", "set_robust_list", "set_tid_address", "setfsgid", "setfsuid", "setgid",
    "setgroups", "setitimer", "setpgid", "setpriority", "setregid", "setresgid", "setresuid", "setreuid",
    "setrlimit", "setsid", "setsockopt", "setuid", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt", "shmget",
    "shutdown", "sigaltstack", "signalfd4", "splice", "statfs", "statmount", "statx", "symlinkat", "sync",
    "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "timer_create", "timer_delete", "timer_getoverrun",
    "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime", "timerfd_settime", "times", "tkill",
    "truncate", "umask", "uname", "unlinkat", "utimensat", "wait4", "waitid", "write", "writev",
  ]

  /// Calls that only x86_64 still has beside their newer forms.
  static let onX86 = [
    "access", "alarm", "arch_prctl", "chown", "dup2", "epoll_create", "epoll_wait", "eventfd", "fork", "futimesat",
    "getdents", "getpgrp", "inotify_init", "lchown", "link", "lstat", "map_shadow_stack", "mkdir", "pause", "pipe",
    "poll", "readlink", "rename", "rmdir", "select", "signalfd", "stat", "symlink", "time", "unlink", "uretprobe",
    "utime", "utimes", "vfork",
  ]

  private static let noSuchCall: SeccompProfile.Action = .errno(38)

  /// S_ISUID and S_ISGID, where `index` is the mode.
  private static func plainMode(_ index: Int64) -> SeccompProfile.Argument {
    SeccompProfile.Argument(index, .masked(0o6000, 0))
  }

  /// O_CREAT and O_TMPFILE absent: then the mode is not read, and can be anything.
  private static func makesNothing(_ index: Int64) -> SeccompProfile.Argument {
    SeccompProfile.Argument(index, .masked(0o20000100, 0))
  }

  private static let whyMode = "a set-uid file in a volume would be one on the host too"

  /// Calls whose arguments decide.
  static let conditional: [SeccompProfile.Rule] = [
    .init(["chmod", "fchmod", "mknod", "creat"], .allow, [plainMode(1)], why: whyMode),
    .init(["fchmodat", "fchmodat2", "mknodat"], .allow, [plainMode(2)], why: whyMode),
    .init(["open"], .allow, [makesNothing(1)], why: whyMode),
    .init(["open"], .allow, [plainMode(2)], why: whyMode),
    .init(["openat"], .allow, [makesNothing(2)], why: whyMode),
    .init(["openat"], .allow, [plainMode(3)], why: whyMode),
    .init(
      ["openat2"], noSuchCall, why: "its mode lies in memory, where a filter cannot look; callers fall back to openat"),
    .init(["personality"], .allow, [.init(0, .equal(0))], why: "other personalities turn address randomisation off"),
  ]

  /// New namespaces give capabilities over kernel code that is otherwise out of reach.
  static let namespaces: [SeccompProfile.Rule] = [
    .init(["clone"], .allow, [.init(0, .masked(0x7E02_0000, 0))], why: "no CLONE_NEW*"),
    .init(["clone3"], noSuchCall, why: "its flags lie in memory; C libraries fall back to clone only on ENOSYS"),
  ]

  /// TIOCSTI types into the terminal of whoever looks, TIOCLINUX pastes there. The kernel reads 32 bits of the request, so only
  /// these are compared: a filter on all 64 was passed by setting a higher one.
  static let terminals: [SeccompProfile.Rule] = [
    .init(["ioctl"], .allow, [.init(1, .noneOf([0x5412, 0x541C]))], why: "all but TIOCSTI and TIOCLINUX")
  ]

  /// Families by number; every other one is answered as if the kernel did not have it, AF_VSOCK (which knows no network
  /// namespace) and AF_ALG among them.
  static func sockets(_ families: SeccompProfile.Families) -> [SeccompProfile.Rule] {
    var numbers: [UInt32] = []
    if families.contains(.unix) { numbers.append(1) }
    if families.contains(.internet) { numbers += [2, 10] }
    if families.contains(.packet) { numbers.append(17) }
    var allowed = numbers.map { SeccompProfile.Rule(["socket"], .allow, [.init(0, .equal(UInt64($0)))]) }
    if families.contains(.netlink) {
      numbers.append(16)
      allowed.append(
        .init(
          ["socket"], .allow, [.init(0, .equal(16)), .init(2, .equal(0))], why: "addresses and routes, nothing else"))
    }
    let refused = SeccompProfile.Rule(
      ["socket"], .errno(97), [.init(0, .noneOf(numbers))], why: "no such address family here")
    return allowed + [refused, .init(["socketpair"], .allow, [.init(0, .equal(1))])]
  }

  /// What a capability is worth nothing without.
  static let byCapability: [String: [String]] = [
    "BPF": ["bpf"],
    "DAC_READ_SEARCH": ["open_by_handle_at", "name_to_handle_at"],
    "PERFMON": ["perf_event_open"],
    "SYS_ADMIN": [
      "bpf", "clone", "clone3", "fanotify_init", "fanotify_mark", "fsconfig", "fsmount", "fsopen", "fspick", "mount",
      "mount_setattr", "move_mount", "open_tree", "perf_event_open", "quotactl", "quotactl_fd", "setdomainname",
      "sethostname", "setns", "syslog", "umount2", "unshare",
    ],
    "SYS_BOOT": ["reboot"],
    "SYS_CHROOT": ["chroot"],
    "SYS_MODULE": ["delete_module", "finit_module", "init_module"],
    "SYS_NICE": ["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"],
    "SYS_PACCT": ["acct"],
    "SYS_PTRACE": ["kcmp", "pidfd_getfd", "process_madvise"],
    "SYS_RAWIO": ["ioperm", "iopl"],
    "SYS_TIME": ["clock_settime", "settimeofday"],
    "SYS_TTY_CONFIG": ["vhangup"],
    "SYSLOG": ["syslog"],
  ]
}
