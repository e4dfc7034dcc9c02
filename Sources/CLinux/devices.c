#define _GNU_SOURCE
#include "clinux.h"
#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST_RULES = 256, PER_RULE = 6, AROUND = 8 };

static struct bpf_insn insn(uint8_t code, uint8_t to, uint8_t from, int16_t offset, int32_t number) {
  return (struct bpf_insn){.code = code, .dst_reg = to, .src_reg = from, .off = offset, .imm = number};
}

// bpf(2): struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }, access_type being access << 16 | type.
int cl_set_device_filter(int cgroup, const struct cl_device_rule *rules, size_t count) {
  if (count > MOST_RULES) return -E2BIG;
  struct bpf_insn program[MOST_RULES * PER_RULE + AROUND];
  int length = 0;
  program[length++] = insn(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_2, BPF_REG_1, 0, 0);
  program[length++] = insn(BPF_ALU | BPF_MOV | BPF_X, BPF_REG_3, BPF_REG_2, 0, 0);
  program[length++] = insn(BPF_ALU | BPF_AND | BPF_K, BPF_REG_2, 0, 0, 0xffff); // the type
  program[length++] = insn(BPF_ALU | BPF_RSH | BPF_K, BPF_REG_3, 0, 0, 16);     // the access
  program[length++] = insn(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_4, BPF_REG_1, 4, 0);
  program[length++] = insn(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_5, BPF_REG_1, 8, 0);
  for (size_t i = 0; i < count; i++) {
    // A rule that does not fit leads to the next one.
    int has_minor = rules[i].minor >= 0;
    int16_t rest = (int16_t)(4 + has_minor);
    program[length++] = insn(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_2, 0, rest--, BPF_DEVCG_DEV_CHAR);
    program[length++] = insn(BPF_JMP | BPF_JSET | BPF_K, BPF_REG_3, 0, rest--, ~rules[i].access & 7);
    program[length++] = insn(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_4, 0, rest--, rules[i].major);
    if (has_minor) program[length++] = insn(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_5, 0, rest--, rules[i].minor);
    program[length++] = insn(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 1);
    program[length++] = insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
  }
  program[length++] = insn(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0);
  program[length++] = insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);

  union bpf_attr load;
  memset(&load, 0, sizeof load);
  load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  load.insn_cnt = (uint32_t)length;
  load.insns = (uint64_t)(uintptr_t)program;
  load.license = (uint64_t)(uintptr_t) "Apache-2.0";
  int loaded = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
  if (loaded < 0) return -errno;

  union bpf_attr attach;
  memset(&attach, 0, sizeof attach);
  attach.target_fd = (uint32_t)cgroup;
  attach.attach_bpf_fd = (uint32_t)loaded;
  attach.attach_type = BPF_CGROUP_DEVICE;
  // Without flags it takes the place of the one before; those of the groups above count too.
  int result = (int)syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach) < 0 ? -errno : 0;
  close(loaded);
  return result;
}

int cl_count_device_filters(int cgroup) {
  union bpf_attr query;
  memset(&query, 0, sizeof query);
  query.query.target_fd = (uint32_t)cgroup;
  query.query.attach_type = BPF_CGROUP_DEVICE;
  if (syscall(SYS_bpf, BPF_PROG_QUERY, &query, sizeof query) < 0) return -errno;
  return (int)query.query.prog_cnt;
}
