#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/types.h>

// O_PATH of open(2), hidden from Swift behind _GNU_SOURCE; the same number on x86_64 and aarch64.
enum { CL_O_PATH = 010000000 };

// accept4(2) with SOCK_CLOEXEC | SOCK_NONBLOCK, and pthread_setname_np(3) of the calling thread: behind _GNU_SOURCE.
int cl_accept(int sock);
int cl_name_thread(const char *name);

// openat2(2) through syscall(2): glibc has no wrapper. `resolve` is RESOLVE_*.
int cl_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);

// pidfd_open(2), pidfd_send_signal(2) through syscall(2).
int cl_pidfd_open(pid_t pid, unsigned flags);
int cl_pidfd_send_signal(int pidfd, int signal);
// The same with PIDFD_SIGNAL_PROCESS_GROUP; -EINVAL before Linux 6.9.
int cl_pidfd_signal_group(int pidfd, int signal);

// renameat2(2) with RENAME_NOREPLACE, through syscall(2).
int cl_rename_new(int olddir, const char *oldname, int newdir, const char *newname);

// f_type of fstatfs(2): <sys/vfs.h> is not imported.
int cl_file_system(int fd, int64_t *type);

// syncfs(2): behind _GNU_SOURCE.
int cl_sync_files(int fd);

// fsetxattr(2) of trusted.overlay.opaque: <sys/xattr.h> is not imported.
int cl_mark_opaque(int fd);
// Whether it is marked so: 1 or 0.
int cl_is_opaque(int fd);
// Bytes that the names of its extended attributes take (flistxattr(2)).
ssize_t cl_count_attributes(int fd);

// sendmsg(2) with `count` descriptors as SCM_RIGHTS: the control buffer is built by the CMSG_ macros. At most 128.
// Returns the bytes sent.
ssize_t cl_send_with_fds(int sock, const void *bytes, size_t length, const int *fds, int count);

// The same with MSG_DONTWAIT: for a socket whose other end is somebody else's.
ssize_t cl_offer_fds(int sock, const void *bytes, size_t length, const int *fds, int count);

// recvmsg(2) with MSG_CMSG_CLOEXEC: stores at most `capacity` (<= 253) descriptors and their number. When the kernel cut
// any off (MSG_CTRUNC), those that arrived are closed and -EMSGSIZE is returned. Returns the bytes received.
ssize_t cl_receive_with_fds(int sock, void *bytes, size_t length, int *fds, int capacity, int *count);

// SO_PEERCRED: Swift does not import struct ucred (it stands behind _GNU_SOURCE).
int cl_peer_credentials(int sock, pid_t *pid, uid_t *uid, gid_t *gid);
// SO_PEERGROUPS: the peer's supplementary groups when it connected; how many. -ERANGE: more than `capacity`.
int cl_peer_groups(int sock, uint32_t *groups, int capacity);
// setgroups(2), setfsgid(2), setfsuid(2) of the calling thread alone: libc's setgroups changes every thread.
int cl_set_file_ids(uint32_t uid, uint32_t gid, const uint32_t *groups, size_t count);
// The same with setresgid(2) and setresuid(2): the effective ids too, while real and saved ones stay, so that nobody with these ids may
// signal or trace the thread. For one that was given to cl_keep_capabilities.
int cl_set_effective_ids(uint32_t uid, uint32_t gid, const uint32_t *groups, size_t count);
// prctl(2), SECBIT_NO_SETUID_FIXUP of the calling thread: capabilities stay as they are whatever its ids become.
int cl_keep_capabilities(void);

// SIGINT, SIGTERM, SIGHUP and SIGWINCH blocked and readable from a signalfd(2), close-on-exec and non-blocking.
int cl_terminal_signals(void);

// SIGINT and SIGTERM blocked and readable from a signalfd(2), close-on-exec: sigset_t and its macros are opaque in Swift.
int cl_interrupt_descriptor(void);
// The same with SIGHUP.
int cl_daemon_descriptor(void);

// Tries something in a child process that ends at once, so that the caller keeps what it has: fork(2) is not to be had in Swift.
// 0: it works; -errno: why not.
int cl_try_unshare(int flags);
int cl_try_no_new_privs(void);
int cl_try_seccomp(void);

// WIFEXITED and friends are macros. Sets *code to the exit code, or *signal to the signal; both else 0.
void cl_wait_status(int status, int *code, int *signal);

// posix_spawn(3) in a new session, descriptors `map[i]` becoming 0, 1, 2 … in the child, all others closed;
// the attribute and action objects are macro-heavy and opaque in Swift. Signals are reset. Stores the pid.
int cl_spawn(const char *path, char *const argv[], char *const envp[], const int *map, int count, pid_t *pid);

// A timerfd(2) of the wall clock that becomes readable at a time, nanoseconds since 1970, or when the clock is set before
// (TFD_TIMER_CANCEL_ON_SET); its flags are not imported.
int cl_wall_timer(int64_t nanoseconds);

// The number of the mount that something open lies in, as in /proc/PID/mountinfo (statx(2), STATX_MNT_ID): behind _GNU_SOURCE.
int64_t cl_mount_id(int fd);

// copy_file_range(2) at the same place of both, which moves on by what was copied: behind _GNU_SOURCE.
ssize_t cl_copy_range(int in, int out, int64_t *offset, size_t length);
// ioctl(2) FICLONE, a variadic call: `out` shares what `in` holds.
int cl_reflink(int in, int out);
// lseek(2) with SEEK_DATA and SEEK_HOLE: behind _GNU_SOURCE. -ENXIO: nothing but a hole is left.
int64_t cl_next_data(int fd, int64_t offset);
int64_t cl_next_hole(int fd, int64_t offset);

// memmem(3), behind _GNU_SOURCE: where a part begins in some bytes, or -ENOENT.
ssize_t cl_find(const void *bytes, size_t length, const void *part, size_t part_length);
