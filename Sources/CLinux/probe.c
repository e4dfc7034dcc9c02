#define _GNU_SOURCE
#include "clinux.h"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// Runs `attempt` in a child and brings back its errno: 0 if it worked.
static int in_child(int (*attempt)(int), int argument) {
  pid_t child = fork();
  if (child < 0) return -errno;
  if (child == 0) _exit(attempt(argument) == 0 ? 0 : (errno & 0xff));
  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return -errno;
  return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECANCELED;
}

static int no_new_privs(int unused) {
  (void)unused;
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static int allow_all_filter(int unused) {
  struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {.len = 1, .filter = &allow};
  if (no_new_privs(unused) < 0) return -1;
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

int cl_try_unshare(int flags) { return in_child(unshare, flags); }
int cl_try_no_new_privs(void) { return in_child(no_new_privs, 0); }
int cl_try_seccomp(void) { return in_child(allow_all_filter, 0); }
