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

// renameat2(2) with RENAME_NOREPLACE, through syscall(2).
int cl_rename_new(int olddir, const char *oldname, int newdir, const char *newname);

// sendmsg(2) with `count` descriptors as SCM_RIGHTS: the control buffer is built by the CMSG_ macros. At most 16.
// Returns the bytes sent.
ssize_t cl_send_with_fds(int sock, const void *bytes, size_t length, const int *fds, int count);

// recvmsg(2) with MSG_CMSG_CLOEXEC: stores at most `capacity` (<= 253) descriptors and their number. When the kernel cut
// any off (MSG_CTRUNC), those that arrived are closed and -EMSGSIZE is returned. Returns the bytes received.
ssize_t cl_receive_with_fds(int sock, void *bytes, size_t length, int *fds, int capacity, int *count);

// SO_PEERCRED: Swift does not import struct ucred (it stands behind _GNU_SOURCE).
int cl_peer_credentials(int sock, pid_t *pid, uid_t *uid, gid_t *gid);

// SIGINT and SIGTERM blocked and readable from a signalfd(2), close-on-exec: sigset_t and its macros are opaque in Swift.
int cl_interrupt_descriptor(void);

// Tries something in a child process that ends at once, so that the caller keeps what it has: fork(2) is not to be had in Swift.
// 0: it works; -errno: why not. cl_landlock_abi: landlock_create_ruleset(2) with LANDLOCK_CREATE_RULESET_VERSION; 0: none.
int cl_try_unshare(int flags);
int cl_try_no_new_privs(void);
int cl_try_seccomp(void);
int cl_landlock_abi(void);

// WIFEXITED and friends are macros. Sets *code to the exit code, or *signal to the signal; both else 0.
void cl_wait_status(int status, int *code, int *signal);

// posix_spawn(3) in a new session, descriptors `map[i]` becoming 0, 1, 2 … in the child, all others closed;
// the attribute and action objects are macro-heavy and opaque in Swift. Signals are reset. Stores the pid.
int cl_spawn(const char *path, char *const argv[], char *const envp[], const int *map, int count, pid_t *pid);
