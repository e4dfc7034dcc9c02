#define _GNU_SOURCE
#include "clinux.h"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_landlock_create_ruleset
enum { SYS_landlock_create_ruleset = 444, SYS_landlock_add_rule = 445, SYS_landlock_restrict_self = 446 };
#endif

static long result(long value) { return value < 0 ? -errno : value; }

int cl_landlock_abi(void) {
  long version = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
  return version < 0 ? 0 : (int)version;
}

int cl_landlock_ruleset(uint64_t files, uint64_t network, uint64_t scopes) {
  // The build's header may be older than the kernel; a field an older kernel does not know must be 0, and may be there.
  struct {
    uint64_t files, network, scopes;
  } handled = {files, network, scopes};
  return (int)result(syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0));
}

int cl_landlock_allow(int ruleset, int beneath, uint64_t rights) {
  struct {
    uint64_t rights;
    int32_t beneath;
  } __attribute__((packed)) rule = {rights, beneath};
  enum { BENEATH_PATH = 1 };
  return (int)result(syscall(SYS_landlock_add_rule, ruleset, BENEATH_PATH, &rule, 0));
}

int cl_landlock_restrict(int ruleset) { return (int)result(syscall(SYS_landlock_restrict_self, ruleset, 0)); }

int cl_load_filter(const void *program, size_t size) {
  size_t count = size / sizeof(struct sock_filter);
  if (size % sizeof(struct sock_filter) || count == 0 || count > BPF_MAXINSNS) return -EINVAL;
  struct sock_fprog filter = {.len = (unsigned short)count, .filter = (struct sock_filter *)(uintptr_t)program};
  return (int)result(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
}
