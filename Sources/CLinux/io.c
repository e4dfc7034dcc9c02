#define _GNU_SOURCE
#include "clinux.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static long result(long value) { return value < 0 ? -errno : value; }

int cl_accept(int sock) { return (int)result(accept4(sock, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)); }

int cl_name_thread(const char *name) { return -pthread_setname_np(pthread_self(), name); }

int cl_mark_opaque(int fd) { return (int)result(fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0)); }

int cl_is_opaque(int fd) {
  char value = 0;
  return fgetxattr(fd, "trusted.overlay.opaque", &value, 1) == 1 && value == 'y';
}

ssize_t cl_count_attributes(int fd) { return (ssize_t)result(flistxattr(fd, NULL, 0)); }

int cl_sync_files(int fd) { return (int)result(syncfs(fd)); }

int cl_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
  struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve};
  return (int)result(syscall(SYS_openat2, dirfd, path, &how, sizeof how));
}

int cl_pidfd_open(pid_t pid, unsigned flags) { return (int)result(syscall(SYS_pidfd_open, pid, flags)); }

int cl_pidfd_send_signal(int pidfd, int signal) {
  return (int)result(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0));
}

int cl_pidfd_signal_group(int pidfd, int signal) {
  enum { PROCESS_GROUP = 1 << 2 };
  return (int)result(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, PROCESS_GROUP));
}

int cl_rename_new(int olddir, const char *oldname, int newdir, const char *newname) {
  return (int)result(renameat2(olddir, oldname, newdir, newname, RENAME_NOREPLACE));
}

static ssize_t send_fds(int sock, const void *bytes, size_t length, const int *fds, int count, int flags) {
  if (count < 0 || count > 128) return -EINVAL;
  struct iovec iov = {.iov_base = (void *)bytes, .iov_len = length};
  union {
    struct cmsghdr align;
    char space[CMSG_SPACE(128 * sizeof(int))];
  } control;
  memset(&control, 0, sizeof control);
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  if (count > 0) {
    message.msg_control = control.space;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  return result(sendmsg(sock, &message, MSG_NOSIGNAL | flags));
}

ssize_t cl_send_with_fds(int sock, const void *bytes, size_t length, const int *fds, int count) {
  return send_fds(sock, bytes, length, fds, count, 0);
}

ssize_t cl_offer_fds(int sock, const void *bytes, size_t length, const int *fds, int count) {
  return send_fds(sock, bytes, length, fds, count, MSG_DONTWAIT);
}

ssize_t cl_receive_with_fds(int sock, void *bytes, size_t length, int *fds, int capacity, int *count) {
  struct iovec iov = {.iov_base = bytes, .iov_len = length};
  union {
    struct cmsghdr align;
    char space[CMSG_SPACE(253 * sizeof(int))];
  } control;
  struct msghdr message = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
  *count = 0;
  ssize_t got = result(recvmsg(sock, &message, MSG_CMSG_CLOEXEC));
  if (got < 0) return got;
  int refused = (message.msg_flags & MSG_CTRUNC) != 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    int received = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    for (int i = 0; i < received; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      if (*count < capacity) fds[(*count)++] = fd;
      else { close(fd); refused = 1; }
    }
  }
  if (!refused) return got;
  while (*count > 0) close(fds[--*count]);
  return -EMSGSIZE;
}

int cl_peer_credentials(int sock, pid_t *pid, uid_t *uid, gid_t *gid) {
  struct ucred credentials;
  socklen_t length = sizeof credentials;
  if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0) return -errno;
  *pid = credentials.pid;
  *uid = credentials.uid;
  *gid = credentials.gid;
  return 0;
}

int cl_peer_groups(int sock, uint32_t *groups, int capacity) {
  socklen_t length = (socklen_t)capacity * sizeof *groups;
  if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, groups, &length) < 0) return -errno;
  return (int)(length / sizeof *groups);
}

int cl_set_file_ids(uint32_t uid, uint32_t gid, const uint32_t *groups, size_t count) {
  if (syscall(SYS_setgroups, count, groups) < 0) return -errno;
  // setfsuid(2) tells the old id and never fails: asked again with an id that is none, it tells the one in force.
  syscall(SYS_setfsgid, gid);
  syscall(SYS_setfsuid, uid);
  int isSet = (uint32_t)syscall(SYS_setfsgid, -1) == gid && (uint32_t)syscall(SYS_setfsuid, -1) == uid;
  return isSet ? 0 : -EPERM;
}

int cl_set_effective_ids(uint32_t uid, uint32_t gid, const uint32_t *groups, size_t count) {
  if (syscall(SYS_setgroups, count, groups) < 0) return -errno;
  if (syscall(SYS_setresgid, -1, gid, -1) < 0 || syscall(SYS_setresuid, -1, uid, -1) < 0) return -errno;
  uint32_t real, effective, saved, effective_group;
  if (syscall(SYS_getresuid, &real, &effective, &saved) < 0) return -errno;
  if (syscall(SYS_getresgid, &real, &effective_group, &saved) < 0) return -errno;
  int is_set = effective == uid && effective_group == gid && (uint32_t)syscall(SYS_setfsgid, -1) == gid &&
               (uint32_t)syscall(SYS_setfsuid, -1) == uid;
  return is_set ? 0 : -EPERM;
}

int cl_file_system(int fd, int64_t *type) {
  struct statfs status;
  if (fstatfs(fd, &status) < 0) return -errno;
  *type = status.f_type;
  return 0;
}

int cl_keep_capabilities(void) { return prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0 ? -errno : 0; }

static int signal_descriptor(const int *signals, int count) {
  sigset_t set;
  sigemptyset(&set);
  for (int i = 0; i < count; i++) sigaddset(&set, signals[i]);
  if (sigprocmask(SIG_BLOCK, &set, NULL) < 0) return -errno;
  return (int)result(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

int cl_interrupt_descriptor(void) { return signal_descriptor((int[]){SIGINT, SIGTERM}, 2); }

int cl_terminal_signals(void) { return signal_descriptor((int[]){SIGINT, SIGTERM, SIGHUP, SIGWINCH}, 4); }

int cl_daemon_descriptor(void) { return signal_descriptor((int[]){SIGINT, SIGTERM, SIGHUP}, 3); }

void cl_wait_status(int status, int *code, int *signal) {
  *code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
  *signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

int cl_spawn(const char *path, char *const argv[], char *const envp[], const int *map, int count, pid_t *pid) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  int error = posix_spawn_file_actions_init(&actions);
  if (error) return -error;
  error = posix_spawnattr_init(&attributes);
  if (error) {
    posix_spawn_file_actions_destroy(&actions);
    return -error;
  }
  sigset_t all, none;
  sigfillset(&all);
  sigemptyset(&none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  // First out of the way, above every source and target, then into place: a source may stand where another is to go.
  int above = count;
  for (int i = 0; i < count; i++) above = map[i] >= above ? map[i] + 1 : above;
  for (int i = 0; i < count && !error; i++) error = posix_spawn_file_actions_adddup2(&actions, map[i], above + i);
  for (int i = 0; i < count && !error; i++) error = posix_spawn_file_actions_adddup2(&actions, above + i, i);
  if (!error) error = posix_spawn_file_actions_addclosefrom_np(&actions, count);
  if (!error) error = posix_spawn(pid, path, &actions, &attributes, argv, envp);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return -error;
}

int cl_wall_timer(int64_t nanoseconds) {
  int timer = (int)result(timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK));
  if (timer < 0) return timer;
  // A time of 0 would switch it off.
  if (nanoseconds < 1) nanoseconds = 1;
  struct itimerspec when = {
      .it_value = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000}};
  long outcome = result(timerfd_settime(timer, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &when, NULL));
  if (outcome < 0) close(timer);
  return outcome < 0 ? (int)outcome : timer;
}

int64_t cl_mount_id(int fd) {
  struct statx status;
  if (statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_MNT_ID, &status) < 0) return -errno;
  return status.stx_mask & STATX_MNT_ID ? (int64_t)status.stx_mnt_id : -ENOSYS;
}

ssize_t cl_copy_range(int in, int out, int64_t *offset, size_t length) {
  off64_t from = *offset, to = *offset;
  ssize_t copied = result(copy_file_range(in, &from, out, &to, length, 0));
  if (copied > 0) *offset += copied;
  return copied;
}

int cl_reflink(int in, int out) { return (int)result(ioctl(out, FICLONE, in)); }

int64_t cl_next_data(int fd, int64_t offset) { return result(lseek64(fd, offset, SEEK_DATA)); }
int64_t cl_next_hole(int fd, int64_t offset) { return result(lseek64(fd, offset, SEEK_HOLE)); }

ssize_t cl_find(const void *bytes, size_t length, const void *part, size_t part_length) {
  const char *found = memmem(bytes, length, part, part_length);
  return found ? found - (const char *)bytes : -ENOENT;
}
