// Attacks on the kernel's interfaces: namespaces, other processes, calls nobody needs, other call tables, terminals, limits.
#define _GNU_SOURCE
#include "probe.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char byte_sink[64];

static void mounts(void) { // A04
  attempt("mount tmpfs", mount("x", "/tmp", "tmpfs", 0, ""));
  attempt("mount bind", mount("/usr", "/tmp", NULL, MS_BIND, NULL));
  attempt("remount writable", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
  attempt("umount2 /proc", umount2("/proc", MNT_DETACH));
  attempt("pivot_root", syscall(SYS_pivot_root, ".", "."));
  attempt("chroot", chroot("/tmp"));
  attempt("fsopen", syscall(430, "tmpfs", 0));
  attempt("open_tree", syscall(428, AT_FDCWD, "/", 1));
  attempt("move_mount", syscall(429, AT_FDCWD, "/usr", AT_FDCWD, "/tmp", 0));
  attempt("mount_setattr", syscall(442, AT_FDCWD, "/", 0, &(uint64_t[4]){0, 1, 0, 0}, 32));
}

static void unshare_user(void) { attempt("unshare user", unshare(CLONE_NEWUSER)); }
static void unshare_mount(void) { attempt("unshare mount", unshare(CLONE_NEWNS)); }
// What a user namespace is wanted for: capabilities over parts of the kernel that are otherwise out of reach.
static void raw_socket_inside(void) {
  if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) return blocked("a raw socket in a new namespace", errno);
  attempt("a raw socket in a new namespace", socket(2, 3, 1));
}

static void namespaces(void) { // A05
  in_child(unshare_user, NULL);
  in_child(unshare_mount, NULL);
  in_child(raw_socket_inside, NULL);
  long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
  if (child == 0) _exit(0);
  attempt("clone user", child);
  struct {
    uint64_t flags, pidfd, tid, parent, signal, stack, size, tls;
  } arguments = {.flags = CLONE_NEWUSER, .signal = SIGCHLD};
  child = syscall(435, &arguments, sizeof arguments);
  if (child == 0) _exit(0);
  attempt("clone3 user", child);
  int fd = open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC);
  if (fd < 0) blocked("setns", errno);
  else attempt("setns", setns(fd, 0));
  int process = (int)syscall(434, 1, 0);
  if (process < 0) blocked("setns pidfd", errno);
  else attempt("setns pidfd", setns(process, CLONE_NEWNS));
  // A map of every id to itself: what becomes root here is the host's.
  unsigned inside = 1, outside = 1, count = 0;
  FILE *map = fopen("/proc/self/uid_map", "r");
  if (!map || fscanf(map, "%u %u %u", &inside, &outside, &count) != 3) absent("the host's ids", "they are not shown");
  else if (inside == 0 && outside == 0 && count == ~0U) succeeded("the host's ids", "");
  else blocked("the host's ids", EPERM);
}

static void processes(void) { // A08
  pid_t first = 1;
  char byte;
  struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
  if (first_is_own()) {
    absent("ptrace pid 1", "it is the app's own");
    absent("process_vm_readv pid 1", "it is the app's own");
  } else {
    attempt("ptrace pid 1", ptrace(PTRACE_SEIZE, first, 0, 0));
    attempt("process_vm_readv pid 1", process_vm_readv(first, &here, 1, &there, 1, 0));
  }
  attempt("kcmp pid 1", syscall(SYS_kcmp, getpid(), first, 0, 0, 0));
  int process = (int)syscall(434, first, 0);
  if (process < 0) blocked("pidfd_getfd pid 1", errno);
  else attempt("pidfd_getfd pid 1", syscall(438, process, 0, 0));
  // Whoever else can be seen is of this app, or should not be seen. What this process itself started does not count.
  int seen = 0, touched = 0, last = ESRCH;
  for (pid_t pid = 2; pid <= 32768; pid++) {
    if (pid == getpid() || pid == getppid() || getpgid(pid) == getpgrp()) continue;
    if (kill(pid, 0) == 0) seen++;
    else if (errno != ESRCH) last = errno;
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
      touched++;
      ptrace(PTRACE_DETACH, pid, 0, 0);
    }
  }
  if (seen || touched) succeeded("kill 0 and ptrace of others", "");
  else blocked("kill 0 and ptrace of others", last);
}

static void kill_all(void) { // A09: as an app of its own; it ends with it
  int reached = 0;
  signal(SIGHUP, SIG_IGN);
  // The parent is the probe itself, which has the words to say; it goes last.
  for (pid_t pid = 1; pid <= 32768; pid++)
    if (pid != getpid() && pid != getppid() && kill(pid, SIGKILL) == 0 && pid != 1) reached++;
  if (reached) succeeded("kill 1..32768", "");
  else blocked("kill 1..32768", ESRCH);
  kill(-1, SIGKILL);
  _exit(42);
}

static void rare_calls(void) { // A10
  attempt("bpf", syscall(SYS_bpf, 0, &(uint32_t[8]){1, 4, 4, 1}, 32));
  attempt("perf_event_open", syscall(SYS_perf_event_open, &(uint64_t[16]){0, 0}, 0, -1, -1, 0));
  attempt("keyctl", syscall(SYS_keyctl, 0, -3, 1, 0, 0));
  attempt("add_key", syscall(SYS_add_key, "user", "probe", "x", 1, -3));
  attempt("request_key", syscall(SYS_request_key, "user", "probe", 0, -3));
  attempt("userfaultfd", syscall(SYS_userfaultfd, 1));
  attempt("io_uring_setup", syscall(425, 1, &(uint32_t[32]){0}));
  attempt("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
  attempt("init_module", syscall(SYS_init_module, 0, 0, ""));
  attempt("finit_module", syscall(SYS_finit_module, 0, "", 0));
  attempt("delete_module", syscall(SYS_delete_module, "none", 0));
  attempt("swapon", syscall(SYS_swapon, "/dev/null", 0));
  attempt("acct", syscall(SYS_acct, 0));
  attempt("quotactl", syscall(SYS_quotactl, 0x800001, 0, 0, 0));
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  attempt("clock_settime", syscall(SYS_clock_settime, CLOCK_REALTIME, &now));
  attempt("settimeofday", syscall(SYS_settimeofday, &(long[2]){now.tv_sec, 0}, 0));
  attempt("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89abcdef, 0)); // "CAD off": harmless
  attempt("syslog", syscall(SYS_syslog, 3, &byte_sink, 0));
  attempt("name_to_handle_at", syscall(SYS_name_to_handle_at, AT_FDCWD, "/", &(uint32_t[34]){128}, &(int){0}, 0));
  attempt("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, &(uint32_t[34]){8, 1}, 0));
  attempt("fanotify_init", syscall(SYS_fanotify_init, 0x200, 0));
  attempt("lookup_dcookie", syscall(SYS_lookup_dcookie, 0, 0, 0));
  attempt("vmsplice", syscall(SYS_vmsplice, 1, &(struct iovec){"", 0}, 1, 0));
  attempt("memfd_secret", syscall(447, 0));
  attempt("personality", syscall(SYS_personality, 0x40000));
#ifdef __x86_64__
  attempt("iopl", syscall(SYS_iopl, 3));
  attempt("ioperm", syscall(SYS_ioperm, 0x80, 1, 1));
  attempt("modify_ldt", syscall(SYS_modify_ldt, 0, &byte_sink, 0));
#endif
  attempt("setdomainname", syscall(SYS_setdomainname, "x", 1));
  attempt("sethostname", syscall(SYS_sethostname, "x", 1));
}

#ifdef __x86_64__
static void old_table(void) {
  long answer;
  __asm__ volatile("int $0x80" : "=a"(answer) : "a"(20) : "memory");
  _exit(answer > 0 ? 0 : 1);
}
static void x32_table(void) { _exit(syscall(0x40000000 | SYS_getpid) > 0 ? 0 : 1); }
#endif

static void other_tables(void) { // A11
#ifdef __x86_64__
  int code = 0;
  int signal = in_child(old_table, &code);
  if (signal == SIGSYS) blocked("int 0x80", ENOSYS);
  else if (signal) absent("int 0x80", "this kernel has no 32-bit calls");
  else attempt("int 0x80", code == 0 ? 0 : (errno = ENOSYS, -1));
  signal = in_child(x32_table, &code);
  if (signal == SIGSYS) blocked("x32", ENOSYS);
  else if (code) absent("x32", "this kernel has no x32 calls");
  else succeeded("x32", "");
#else
  absent("int 0x80", "not on this machine");
#endif
}

static void terminals(void) { // A16
  unsigned long wanted[] = {0x5412, 0x5412 | 1UL << 32, 0x541C, 0x541C | 1UL << 40};
  const char *names[] = {"TIOCSTI", "TIOCSTI with an upper half", "TIOCLINUX", "TIOCLINUX with an upper half"};
  int terminal = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
  int places[] = {0, 1, 2, terminal};
  for (int i = 0; i < 4; i++) {
    int worked = 0, last = 0;
    for (int j = 0; j < 4; j++) {
      if (places[j] < 0) continue;
      if (syscall(SYS_ioctl, places[j], wanted[i], "x") == 0) worked = 1;
      else last = errno;
    }
    if (worked) succeeded(names[i], "");
    else blocked(names[i], last);
  }
}

static void limits(void) { // A24
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  struct rlimit more = {limit.rlim_max + 1, limit.rlim_max + 1};
  attempt("raise nofile", setrlimit(RLIMIT_NOFILE, &more));
  attempt("SCHED_FIFO", sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){1}));
  errno = 0;
  attempt("nice -10", setpriority(PRIO_PROCESS, 0, -10));
  void *memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  attempt("mlock 1 MiB", mlock(memory, 1 << 20));
  if (first_is_own()) absent("prlimit of pid 1", "it is the app's own");
  else attempt("prlimit of pid 1", prlimit(1, RLIMIT_NOFILE, &(struct rlimit){10, 10}, NULL));
  attempt("raise core", setrlimit(RLIMIT_CORE, &(struct rlimit){1 << 20, 1 << 20}));
  int own = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (own < 0) blocked("lower oom_score_adj", errno);
  else attempt("lower oom_score_adj", write(own, "0", 1));
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct all[2] = {{~0U, ~0U, ~0U}, {~0U, ~0U, ~0U}};
  attempt("capset all", syscall(SYS_capset, &header, all));
  attempt("ambient raise", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0));
  attempt("setuid 0", syscall(SYS_setuid, 0));
  attempt("setgroups 0", syscall(SYS_setgroups, 1, &(unsigned[1]){0}));
  attempt("no_new_privs off", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
}

// One number with no arguments, in a process of its own: 1 for EPERM, 2 for ENOSYS, 0 for anything else, which means it was reached.
static int call_number(int number) {
  pid_t child = fork();
  if (child == 0) {
    pid_t self = getpid();
    setpgid(0, 0);
    close(0), close(1), close(2);
    errno = 0;
    long answer = syscall(number, 0L, 0L, 0L, 0L, 0L, 0L);
    int code = answer == -1 ? errno : 0;
    _exit(getpid() != self ? 0 : code == EPERM ? 1 : code == ENOSYS ? 2 : 0);
  }
  int status = 0;
  // Some wait for ever; what nobody knows never does, however slow the machine.
  int patience = number > 467 ? 10000 : 100;
  for (int waited = 0; waitpid(child, &status, WNOHANG) == 0; waited++) {
    if (waited == patience) kill(-child, SIGKILL), kill(child, SIGKILL);
    usleep(1000);
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}

// A23: what a program can reach at all. `sync` is left out: it would wait for the whole machine's disk.
static void every_call(void) {
  char part[200] = "", name[32];
  int count = 0, unknown = 0;
  for (int number = 0; number <= 600; number++) {
    int answer = number == SYS_sync ? 1 : call_number(number);
    if (number > 467 && answer != 2) unknown++;
    if (answer == 0) {
      snprintf(part + strlen(part), sizeof part - strlen(part), "%s%d", part[0] ? " " : "", number);
      count++;
    }
    if (part[0] && (count % 20 == 0 || number == 600)) {
      snprintf(name, sizeof name, "reached %d", (count + 19) / 20);
      absent(name, part);
      part[0] = 0;
    }
  }
  if (unknown) succeeded("numbers newer than the filter", "");
  else blocked("numbers newer than the filter", ENOSYS);
}

const struct attack kernel_attacks[] = {{"A04", mounts},  {"A05", namespaces},   {"A08", processes}, {"A09", kill_all},
                                        {"A10", rare_calls}, {"A11", other_tables}, {"A16", terminals}, {"A23", every_call},
                                        {"A24", limits},  {NULL, NULL}};
