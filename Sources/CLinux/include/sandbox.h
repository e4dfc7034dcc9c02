// What a sandbox is made of and Swift cannot say: clone3(2) and fork(2), the mount calls without a glibc wrapper, variadic prctl(2),
// structures behind _GNU_SOURCE. Every function returns >= 0, or -errno; none prints, allocates or exits.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
  CL_FS = 0x00000200, CL_NEWNS = 0x00020000, CL_NEWCGROUP = 0x02000000, CL_NEWUTS = 0x04000000, CL_NEWIPC = 0x08000000,
  CL_NEWUSER = 0x10000000, CL_NEWPID = 0x20000000, CL_NEWNET = 0x40000000
};

// clone3(2) as fork: 0 in the child. `cgroup` is a descriptor of a v2 folder, or -1. Handled signals are reset in the child.
// Stores a pidfd of the child. Only for a process with one thread: the child goes on with the whole of its memory.
pid_t cl_clone(uint64_t flags, int cgroup, int *pidfd);

// fork(2), which Swift does not import. Only for a process with one thread.
pid_t cl_fork(void);

// clone3(2) with CLONE_PARENT: the child becomes the caller's sibling, so that the caller's parent waits for it. No new namespaces.
pid_t cl_clone_sibling(void);

// _exit(2): no handlers, no flushing.
void cl_exit_now(int code) __attribute__((noreturn));

// waitpid(2). `flags` 0 or CL_NO_WAIT; the status as cl_wait_status reads it; -1 for `pid` is any child.
enum { CL_NO_WAIT = 1 };
pid_t cl_wait(pid_t pid, int flags, int *status);

// waitid(2) with WNOWAIT: a child that has ended and was not waited for; 0 or -errno if there is none. siginfo_t is a union of macros.
pid_t cl_peek_ended(void);

int cl_unshare(int flags);
int cl_setns(int fd, int flags);

// open_tree(2) with OPEN_TREE_CLONE; mount_setattr(2); move_mount(2) of a detached mount onto an open folder or file.
// `recursive` takes the submounts too. Attributes are MOUNT_ATTR_*.
enum { CL_MOUNT_RDONLY = 1, CL_MOUNT_NOSUID = 2, CL_MOUNT_NODEV = 4, CL_MOUNT_NOEXEC = 8 };
int cl_clone_tree(int dirfd, const char *path, int recursive);
int cl_set_mount(int fd, uint64_t set, int recursive, int make_private);
int cl_attach_mount(int mount, int target);

// mount_setattr(2), MOUNT_ATTR_IDMAP: what is owned by id N in it shows as owned by N of the user namespace. Detached mounts alone.
int cl_map_mount_ids(int fd, int user_namespace);
// mount(2) of an overlay at `target`, nosuid and nodev. fsconfig(2) takes strings of 255 bytes at most, in which many layers have no room.
int cl_mount_overlay(const char *target, const char *options);

// A mount from nothing, through fsopen(2): `options` are pairs key, value (value NULL: a flag), ended by NULL. Returns a detached
// mount of type `type`.
int cl_new_mount(const char *type, const char *const options[], uint64_t attributes);

// The file system behind a mount becomes read-only for everybody, through fspick(2); `flag` (or NULL) is what it must be told again.
int cl_seal_file_system(int mount, const char *flag);

// A user namespace that nobody lives in, with these maps (user_namespaces(7)); and mount_setattr(2) with MOUNT_ATTR_IDMAP, which shows
// a detached mount's files, submounts included, with the ids that it maps theirs to.
int cl_user_namespace(const char *uid_map, const char *gid_map);
int cl_map_mount(int mount, int namespace);

// mount(2) of "/" as private, all below included.
int cl_make_all_private(void);

// pivot_root(".", ".") of the current folder, then umount2(2) of the old root, then chdir(2) to the new one.
int cl_pivot_here(void);

int cl_set_hostname(const char *name, size_t length);
// SIOCSIFFLAGS: brings `lo` up in the caller's network namespace.
int cl_loopback_up(void);

// prctl(2) with its numbers.
int cl_set_subreaper(void);
int cl_set_not_dumpable(void);
int cl_set_no_new_privs(void);
// Drops every capability from the bounding set that is not in `keep` (bit = number).
int cl_bound_capabilities(uint64_t keep);
// Permitted, effective and inheritable become `set` (capset(2)); then ambient is cleared, and raised to `set` if `ambient`.
int cl_set_capabilities(uint64_t set, int ambient);
// Securebits: NOROOT and NO_SETUID_FIXUP, and NO_CAP_AMBIENT_RAISE if `no_ambient`, each locked.
int cl_lock_securebits(int no_ambient);
// setgroups(2), setresgid(2), setresuid(2), in this order.
int cl_become(uint32_t uid, uint32_t gid, const uint32_t *groups, size_t count);

// prlimit(2) by the kernel's number; UINT64_MAX is unlimited. `pid` 0 is the caller.
int cl_set_rlimit(int pid, int resource, uint64_t soft, uint64_t hard);

// close_range(2) from `first` on; `only_on_exec` marks them instead (CLOSE_RANGE_CLOEXEC).
int cl_close_from(unsigned first, int only_on_exec);

// No signal blocked from now on (sigprocmask(2); its set is a macro affair).
int cl_unblock_signals(void);

// execveat(2) of an open file (AT_EMPTY_PATH), which glibc has but Swift does not import.
int cl_exec_open(int fd, char *const argv[], char *const envp[]);

// memfd_create(2) with sealing allowed; fcntl(2) F_ADD_SEALS of every seal, and F_GET_SEALS to check them.
int cl_memory_file(const char *name);
int cl_seal(int fd);
int cl_is_sealed(int fd);

// splice(2), without blocking on a pipe; the offset of `out` is `*offset` where `offset` is not NULL, and moves on.
ssize_t cl_splice(int in, int out, int64_t *offset, size_t length);
// F_SETPIPE_SZ.
int cl_set_pipe_size(int fd, int size);

// A SOCK_SEQPACKET pair, close-on-exec; ends[0] gets the sender's pid with each message (SO_PASSCRED).
int cl_packet_pair(int ends[2]);
// recvmsg(2): returns the length; stores the sender's pid and uid as seen from here, 0 and -1 if none came. Descriptors that are sent
// along find no room and are dropped by the kernel.
ssize_t cl_receive_from(int sock, void *bytes, size_t length, pid_t *sender, uid_t *uid);
// An unbound SOCK_DGRAM socket, close-on-exec and non-blocking, that learns who sent each message (SO_PASSCRED).
int cl_datagram_socket(void);
ssize_t cl_send_packet(int sock, const void *bytes, size_t length);

// An ioctl(2) FIONREAD.
int cl_bytes_waiting(int fd);

// IPv4 or IPv6 stream socket bound to `address` (numeric) and listening, non-blocking; *port is what was really taken.
int cl_listen_tcp(const char *address, uint16_t *port, int backlog);
// A non-blocking stream socket on its way to 127.0.0.1:port, or to [::1]:port (-EINPROGRESS is success).
int cl_connect_loopback(uint16_t port, int v6);
// SO_ERROR.
int cl_socket_error(int fd);
int cl_shutdown_write(int fd);

// inotify_init1(2) and inotify_add_watch(2) themselves are imported; their flags are not, being an enum and macros.
#include <sys/inotify.h>
enum {
  CL_IN_FLAGS = IN_CLOEXEC | IN_NONBLOCK,
  CL_IN_OVERFLOW = IN_Q_OVERFLOW,
  CL_IN_MADE = IN_CREATE | IN_MOVED_TO,
  CL_IN_LOST = IN_DELETE | IN_MOVED_FROM,
  CL_IN_SELF = IN_DELETE_SELF | IN_MOVE_SELF,
  CL_IN_WRITTEN = IN_CLOSE_WRITE,
  CL_IN_CHANGED = IN_MODIFY,
  CL_IN_LOOKS = IN_ATTRIB,
  CL_IN_ALL = CL_IN_MADE | CL_IN_LOST | CL_IN_SELF | CL_IN_WRITTEN | CL_IN_CHANGED | CL_IN_LOOKS,
  CL_IN_CHANGES = IN_MODIFY | IN_CREATE | IN_CLOSE_WRITE | IN_ONLYDIR,
  CL_IN_FILES = IN_MODIFY | IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF |
                IN_MOVE_SELF | IN_ONLYDIR
};

// Landlock (landlock(7)): the ABI (0: none); a ruleset that denies what it handles; what is allowed beneath an open path; the
// calling thread is held to it from then on, and so is what it starts.
int cl_landlock_abi(void);
int cl_landlock_ruleset(uint64_t files, uint64_t network, uint64_t scopes);
int cl_landlock_allow(int ruleset, int beneath, uint64_t rights);
int cl_landlock_restrict(int ruleset);

// seccomp(2), SECCOMP_SET_MODE_FILTER, of `size` bytes of struct sock_filter.
int cl_load_filter(const void *program, size_t size);

// A pseudo-terminal: posix_openpt(3), unlockpt(3), and TIOCGPTPEER so that no path is opened. ends[0] is the master, non-blocking;
// both close-on-exec. TIOCSCTTY, TIOCSWINSZ and TIOCGWINSZ: variadic ioctl(2).
int cl_open_terminal(int ends[2]);
int cl_control_terminal(int fd);
int cl_set_terminal_size(int fd, uint16_t columns, uint16_t rows);
int cl_terminal_size(int fd, uint16_t *columns, uint16_t *rows);

// What a cgroup's processes may do with a character device: `access` is CL_DEVICE_* or'ed; a `minor` of -1 is any.
enum { CL_DEVICE_MKNOD = 1, CL_DEVICE_READ = 2, CL_DEVICE_WRITE = 4 };
struct cl_device_rule {
  int32_t major;
  int32_t minor;
  int32_t access;
};
// bpf(2), BPF_CGROUP_DEVICE on a v2 folder: no device but by these rules, in place of what was set by the same call before. At most 256.
int cl_set_device_filter(int cgroup, const struct cl_device_rule *rules, size_t count);
// How many such programs the folder itself has.
int cl_count_device_filters(int cgroup);
