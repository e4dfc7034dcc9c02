#define _GNU_SOURCE
#include "sandbox.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// <sys/mount.h> and <linux/mount.h> cannot be included together on every libc; these are mount(2)'s own.
extern int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);
extern int umount2(const char *target, int flags);
enum { PRIVATE = 1 << 18, RECURSIVE = 1 << 14, DETACH = 2, NO_SETUID = 2, NO_DEVICES = 4 };

static long result(long value) { return value < 0 ? -errno : value; }

pid_t cl_clone(uint64_t flags, int cgroup, int *pidfd) {
  struct clone_args arguments = {.flags = flags | CLONE_PIDFD | CLONE_CLEAR_SIGHAND, .exit_signal = SIGCHLD};
  arguments.pidfd = (uint64_t)(uintptr_t)pidfd;
  if (cgroup >= 0) {
    arguments.flags |= CLONE_INTO_CGROUP;
    arguments.cgroup = (uint64_t)cgroup;
  }
  return (pid_t)result(syscall(SYS_clone3, &arguments, sizeof arguments));
}

pid_t cl_clone_sibling(void) {
  struct clone_args arguments = {.flags = CLONE_PARENT};
  return (pid_t)result(syscall(SYS_clone3, &arguments, sizeof arguments));
}

pid_t cl_fork(void) { return (pid_t)result(fork()); }

void cl_exit_now(int code) { _exit(code); }

pid_t cl_wait(pid_t pid, int flags, int *status) {
  return (pid_t)result(waitpid(pid, status, (flags & CL_NO_WAIT ? WNOHANG : 0) | __WALL));
}

pid_t cl_peek_ended(void) {
  siginfo_t info = {0};
  if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0) return -errno;
  return info.si_pid;
}

int cl_unshare(int flags) { return (int)result(unshare(flags)); }
int cl_setns(int fd, int flags) { return (int)result(setns(fd, flags)); }

int cl_clone_tree(int dirfd, const char *path, int recursive) {
  unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  return (int)result(syscall(SYS_open_tree, dirfd, path, flags));
}

int cl_set_mount(int fd, uint64_t set, int recursive, int make_private) {
  struct mount_attr attributes = {.attr_set = set, .propagation = make_private ? PRIVATE : 0};
  unsigned flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  return (int)result(syscall(SYS_mount_setattr, fd, "", flags, &attributes, sizeof attributes));
}

int cl_map_mount_ids(int fd, int user_namespace) {
  struct mount_attr attributes = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)user_namespace};
  return (int)result(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attributes, sizeof attributes));
}

int cl_mount_overlay(const char *target, const char *options) {
  return (int)result(mount("overlay", target, "overlay", NO_SETUID | NO_DEVICES, options));
}

int cl_attach_mount(int mount, int target) {
  unsigned flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
  return (int)result(syscall(SYS_move_mount, mount, "", target, "", flags));
}

int cl_new_mount(const char *type, const char *const options[], uint64_t attributes) {
  int context = (int)result(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
  if (context < 0) return context;
  long outcome = 0;
  for (int i = 0; outcome >= 0 && options[i]; i += 2) {
    unsigned command = options[i + 1] ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;
    outcome = result(syscall(SYS_fsconfig, context, command, options[i], options[i + 1], 0));
  }
  if (outcome >= 0) outcome = result(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
  if (outcome >= 0) outcome = result(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, (unsigned)attributes));
  close(context);
  return (int)outcome;
}

int cl_seal_file_system(int mount, const char *flag) {
  int context = (int)result(syscall(SYS_fspick, mount, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH));
  if (context < 0) return context;
  long outcome = result(syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, "ro", NULL, 0));
  if (outcome >= 0 && flag) outcome = result(syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, flag, NULL, 0));
  if (outcome >= 0) outcome = result(syscall(SYS_fsconfig, context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0));
  close(context);
  return (int)outcome;
}

static int put(pid_t pid, const char *name, const char *text) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
  int file = (int)result(open(path, O_WRONLY | O_CLOEXEC));
  if (file < 0) return file;
  long written = result(write(file, text, strlen(text)));
  close(file);
  return written < 0 ? (int)written : 0;
}

int cl_user_namespace(const char *uid_map, const char *gid_map) {
  // No signal at its end: nobody else in this process waits for it by accident.
  struct clone_args arguments = {.flags = CLONE_NEWUSER};
  pid_t pid = (pid_t)result(syscall(SYS_clone3, &arguments, sizeof arguments));
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    for (;;) syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
  }
  if (pid < 0) return pid;
  int outcome = put(pid, "uid_map", uid_map);
  if (outcome >= 0) outcome = put(pid, "gid_map", gid_map);
  if (outcome >= 0) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
    outcome = (int)result(open(path, O_RDONLY | O_CLOEXEC));
  }
  kill(pid, SIGKILL);
  while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR) {}
  return outcome;
}

int cl_map_mount(int mount, int namespace) {
  struct mount_attr attributes = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)namespace};
  return (int)result(syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes));
}

int cl_make_all_private(void) { return (int)result(mount(NULL, "/", NULL, PRIVATE | RECURSIVE, NULL)); }

int cl_pivot_here(void) {
  if (syscall(SYS_pivot_root, ".", ".") < 0) return -errno;
  if (umount2(".", DETACH) < 0) return -errno;
  return (int)result(chdir("/"));
}

int cl_set_hostname(const char *name, size_t length) { return (int)result(sethostname(name, length)); }

int cl_loopback_up(void) {
  int sock = (int)result(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (sock < 0) return sock;
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  long outcome = result(ioctl(sock, SIOCSIFFLAGS, &request));
  close(sock);
  return (int)outcome;
}

int cl_set_subreaper(void) { return (int)result(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)); }
int cl_set_not_dumpable(void) { return (int)result(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)); }
int cl_set_no_new_privs(void) { return (int)result(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); }

int cl_bound_capabilities(uint64_t keep) {
  for (unsigned long number = 0; number < 64; number++) {
    if (keep >> number & 1) continue;
    // EINVAL: past the last capability this kernel knows.
    if (prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0) return errno == EINVAL && number > 0 ? 0 : -errno;
  }
  return 0;
}

int cl_set_capabilities(uint64_t set, int ambient) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2];
  for (int i = 0; i < 2; i++) {
    uint32_t half = (uint32_t)(set >> (32 * i));
    data[i].effective = data[i].permitted = data[i].inheritable = half;
  }
  if (syscall(SYS_capset, &header, data) < 0) return -errno;
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) return -errno;
  for (unsigned long number = 0; ambient && number < 64; number++) {
    if (!(set >> number & 1)) continue;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0) < 0) return -errno;
  }
  return 0;
}

int cl_lock_securebits(int no_ambient) {
  unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED;
  if (no_ambient) bits |= SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
  return (int)result(prctl(PR_SET_SECUREBITS, bits, 0, 0, 0));
}

int cl_become(uint32_t uid, uint32_t gid, const uint32_t *groups, size_t count) {
  if (syscall(SYS_setgroups, count, groups) < 0) return -errno;
  if (syscall(SYS_setresgid, gid, gid, gid) < 0) return -errno;
  return (int)result(syscall(SYS_setresuid, uid, uid, uid));
}

int cl_set_rlimit(int pid, int resource, uint64_t soft, uint64_t hard) {
  struct rlimit64 limit = {.rlim_cur = soft, .rlim_max = hard};
  return (int)result(prlimit64(pid, resource, &limit, NULL));
}

int cl_close_from(unsigned first, int only_on_exec) {
  return (int)result(syscall(SYS_close_range, first, ~0U, only_on_exec ? CLOSE_RANGE_CLOEXEC : 0));
}

int cl_unblock_signals(void) {
  sigset_t none;
  sigemptyset(&none);
  return (int)result(sigprocmask(SIG_SETMASK, &none, NULL));
}

int cl_exec_open(int fd, char *const argv[], char *const envp[]) {
  return (int)result(execveat(fd, "", argv, envp, AT_EMPTY_PATH));
}

int cl_memory_file(const char *name) {
  return (int)result(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
}

enum { ALL_SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE };

int cl_seal(int fd) { return (int)result(fcntl(fd, F_ADD_SEALS, ALL_SEALS)); }

int cl_is_sealed(int fd) {
  int seals = fcntl(fd, F_GET_SEALS);
  return seals < 0 ? -errno : (seals & ALL_SEALS) == ALL_SEALS;
}

ssize_t cl_splice(int in, int out, int64_t *offset, size_t length) {
  loff_t place = offset ? *offset : 0;
  ssize_t moved = result(splice(in, NULL, out, offset ? &place : NULL, length, SPLICE_F_MOVE | SPLICE_F_NONBLOCK));
  if (offset) *offset = place;
  return moved;
}

int cl_set_pipe_size(int fd, int size) { return (int)result(fcntl(fd, F_SETPIPE_SZ, size)); }

int cl_packet_pair(int ends[2]) {
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) return -errno;
  int on = 1;
  return (int)result(setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
}

int cl_datagram_socket(void) {
  int sock = (int)result(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (sock < 0) return sock;
  int on = 1;
  long outcome = result(setsockopt(sock, SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
  if (outcome < 0) close(sock);
  return outcome < 0 ? (int)outcome : sock;
}

ssize_t cl_receive_from(int sock, void *bytes, size_t length, pid_t *sender, uid_t *uid) {
  struct iovec iov = {.iov_base = bytes, .iov_len = length};
  union {
    struct cmsghdr align;
    char space[CMSG_SPACE(sizeof(struct ucred))];
  } control;
  struct msghdr message = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
  *sender = 0;
  *uid = (uid_t)-1;
  ssize_t got = result(recvmsg(sock, &message, MSG_CMSG_CLOEXEC));
  if (got < 0) return got;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_CREDENTIALS) {
    struct ucred credentials;
    memcpy(&credentials, CMSG_DATA(header), sizeof credentials);
    *sender = credentials.pid;
    *uid = credentials.uid;
  }
  return got;
}

ssize_t cl_send_packet(int sock, const void *bytes, size_t length) {
  return result(send(sock, bytes, length, MSG_NOSIGNAL));
}

int cl_bytes_waiting(int fd) {
  int count = 0;
  return ioctl(fd, FIONREAD, &count) < 0 ? -errno : count;
}

static int parse_address(const char *text, uint16_t port, struct sockaddr_storage *address, socklen_t *length) {
  memset(address, 0, sizeof *address);
  struct sockaddr_in *v4 = (struct sockaddr_in *)address;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
  if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    *length = sizeof *v4;
    return 0;
  }
  if (inet_pton(AF_INET6, text, &v6->sin6_addr) != 1) return -EADDRNOTAVAIL;
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(port);
  *length = sizeof *v6;
  return 0;
}

int cl_listen_tcp(const char *text, uint16_t *port, int backlog) {
  struct sockaddr_storage address;
  socklen_t length;
  int bad = parse_address(text, *port, &address, &length);
  if (bad < 0) return bad;
  int sock = (int)result(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (sock < 0) return sock;
  int on = 1;
  // IPV6_V6ONLY fails on an IPv4 socket, which has no use for it.
  setsockopt(sock, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  long outcome = result(setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
  if (outcome >= 0) outcome = result(bind(sock, (struct sockaddr *)&address, length));
  if (outcome >= 0) outcome = result(listen(sock, backlog));
  if (outcome >= 0) outcome = result(getsockname(sock, (struct sockaddr *)&address, &length));
  if (outcome < 0) {
    close(sock);
    return (int)outcome;
  }
  // The port stands at the same place in both kinds of address.
  *port = ntohs(((struct sockaddr_in *)&address)->sin_port);
  return sock;
}

int cl_connect_loopback(uint16_t port, int v6) {
  struct sockaddr_storage address;
  socklen_t length;
  parse_address(v6 ? "::1" : "127.0.0.1", port, &address, &length);
  int sock = (int)result(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (sock < 0) return sock;
  if (connect(sock, (struct sockaddr *)&address, length) < 0 && errno != EINPROGRESS) {
    int code = errno;
    close(sock);
    return -code;
  }
  return sock;
}

int cl_socket_error(int fd) {
  int code = 0;
  socklen_t length = sizeof code;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length) < 0 ? -errno : code;
}

int cl_shutdown_write(int fd) { return (int)result(shutdown(fd, SHUT_WR)); }

int cl_open_terminal(int ends[2]) {
  ends[0] = (int)result(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  if (ends[0] < 0) return ends[0];
  int unlocked = 0;
  long outcome = result(ioctl(ends[0], TIOCSPTLCK, &unlocked));
  if (outcome >= 0) outcome = ends[1] = (int)result(ioctl(ends[0], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (outcome < 0) close(ends[0]);
  return outcome < 0 ? (int)outcome : 0;
}

int cl_control_terminal(int fd) { return (int)result(ioctl(fd, TIOCSCTTY, 0)); }

int cl_set_terminal_size(int fd, uint16_t columns, uint16_t rows) {
  struct winsize size = {.ws_col = columns, .ws_row = rows};
  return (int)result(ioctl(fd, TIOCSWINSZ, &size));
}

int cl_terminal_size(int fd, uint16_t *columns, uint16_t *rows) {
  struct winsize size;
  if (ioctl(fd, TIOCGWINSZ, &size) < 0) return -errno;
  *columns = size.ws_col;
  *rows = size.ws_row;
  return 0;
}
