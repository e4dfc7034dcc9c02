// Attacks on what everyone shares: memory, tasks, files, time. Each runs as an app of its own; those that must outlast the report
// leave processes behind that hold on, and `probe stay` keeps the app up.
#define _GNU_SOURCE
#include "probe.h"
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, ROUNDS = 4096 };

// Writes blocks of a MiB until it is refused; 4 GiB count as without end.
static void fill(const char *path) {
  static char block[BLOCK];
  memset(block, 7, sizeof block);
  int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0) _exit(100);
  for (int i = 0; i < ROUNDS; i++)
    if (write(fd, block, sizeof block) < 0) _exit(errno);
  _exit(0);
}

// What came of a child that was to take without end: 0: nothing stopped it.
static void taken(const char *call, int signal, int code) {
  if (signal == SIGKILL) blocked(call, ENOMEM);
  else if (code == 100) absent(call, "it could not begin");
  else if (code) blocked(call, code);
  else succeeded(call, "");
}

static void take(const char *call, void (*body)(void)) {
  int code = 0;
  int signal = in_child(body, &code);
  taken(call, signal, code);
}

static void fill_tmp(void) { fill("/tmp/.fill"); }
static void fill_shm(void) { fill("/dev/shm/.fill"); }

static void many_files(void) {
  char name[32];
  for (int i = 0; i < 400000; i++) {
    snprintf(name, sizeof name, "/tmp/.file%d", i);
    int fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) _exit(errno);
    close(fd);
  }
  _exit(0);
}

static void deep_folders(void) {
  if (chdir("/tmp") < 0) _exit(100);
  for (int i = 0; i < 5000; i++)
    if (mkdir("d", 0700) < 0 || chdir("d") < 0) _exit(errno);
  _exit(90); // deep enough; that it can be taken away again is the test
}

static void fill_files(void) { // A33
  int code = 0;
  in_child(deep_folders, &code);
  if (code == 90) blocked("folders 5000 deep", 0);
  else taken("folders 5000 deep", 0, code ? code : 100);
  take("fill /tmp", fill_tmp);
  unlink("/tmp/.fill");
  take("fill /dev/shm", fill_shm);
  unlink("/dev/shm/.fill");
  take("files without number", many_files);
}

static void hold(void) {
  signal(SIGTERM, SIG_IGN);
  signal(SIGINT, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  for (;;) pause();
}

// Each process makes others, in sessions of their own and with signals ignored, until none can be made.
static void fork_bomb(void) { // A37
  int refused = 0, last = 0;
  for (int i = 0; i < 20000 && refused < 200; i++) {
    pid_t child = fork();
    if (child < 0) {
      refused++;
      last = errno;
      usleep(1000);
    } else if (child == 0) {
      setsid();
      for (int j = 0; j < 3; j++)
        if (fork() == 0) hold();
      hold();
    }
  }
  if (refused) blocked("fork without end", last);
  else succeeded("fork without end", "");
}

static void anonymous(void) {
  for (int i = 0; i < ROUNDS; i++) {
    char *memory = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) _exit(errno);
    memset(memory, 1, BLOCK);
  }
  _exit(0);
}

static void shared(void) {
  int fd = memfd_create("probe", MFD_CLOEXEC);
  if (fd < 0) _exit(100);
  static char block[BLOCK];
  memset(block, 7, sizeof block);
  for (int i = 0; i < ROUNDS; i++)
    if (write(fd, block, sizeof block) < 0) _exit(errno);
  _exit(0);
}

// Pipes and sockets that nobody reads: memory of the kernel's.
static void buffers(void) {
  static char block[65536];
  for (int i = 0; i < 100000; i++) {
    int ends[2];
    if (pipe2(ends, O_NONBLOCK) < 0) _exit(errno);
    while (write(ends[1], block, sizeof block) > 0)
      ;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) < 0) _exit(errno);
    while (write(ends[1], block, sizeof block) > 0)
      ;
  }
  _exit(0);
}

static void memory(void) { // A38
  take("anonymous memory", anonymous);
  take("shared memory", shared);
  take("buffers of pipes and sockets", buffers);
}

static void out_of_memory(void) { // A38x: the app itself, so that its end says why
  blocked("begun", 0);
  anonymous();
}

static void busy(void) { // A39
  for (int i = 0; i < 64; i++) {
    pid_t child = fork();
    if (child < 0) break;
    if (child == 0)
      for (volatile unsigned long j = 0;; j++)
        ;
  }
  blocked("64 busy processes", 0);
}

// Makes one after another until refused; 100 000 count as without end.
#define MANY(call, answer)                                                                                             \
  do {                                                                                                                 \
    int count = 0;                                                                                                     \
    while (count < 100000 && (long)(answer) >= 0) count++;                                                             \
    if (count < 100000) blocked(call, errno);                                                                          \
    else succeeded(call, "");                                                                                          \
  } while (0)

static void objects_of_files(void) { MANY("open files", open("/dev/null", O_RDONLY | O_CLOEXEC)); }
static void objects_of_inotify(void) { MANY("inotify instances", inotify_init1(IN_CLOEXEC)); }
static void objects_of_timers(void) {
  timer_t timer;
  MANY("timers", timer_create(CLOCK_MONOTONIC, NULL, &timer));
}
static void objects_of_queues(void) {
  char name[32];
  MANY("message queues", (snprintf(name, sizeof name, "/probe%d", count),
                          mq_open(name, O_CREAT | O_RDWR, 0600, &(struct mq_attr){.mq_maxmsg = 10, .mq_msgsize = 8192})));
}
static void objects_of_shm(void) { MANY("SysV shared memory", shmget(IPC_PRIVATE, 4096, 0600)); }
static void objects_of_sem(void) { MANY("SysV semaphores", semget(IPC_PRIVATE, 1, 0600)); }
static void objects_of_terminals(void) { MANY("pseudo-terminals", open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)); }

static void objects(void) { // A40
  void (*all[])(void) = {objects_of_files, objects_of_inotify, objects_of_timers, objects_of_queues,
                         objects_of_shm,   objects_of_sem,     objects_of_terminals};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) in_child(all[i], NULL);
}

static void flood(void) { // A41
  static char block[BLOCK];
  for (size_t i = 0; i < sizeof block; i++) block[i] = (char)(i * 37 % 127);
  // Every control character first, then one line that does not end.
  for (int i = 0; i < 24; i++)
    if (write(1, block, sizeof block) < 0) return blocked("flood stdout", errno);
  memset(block, 'x', sizeof block);
  for (int i = 0; i < 8; i++)
    if (write(2, block, sizeof block) < 0) return blocked("flood stderr", errno);
  if (write(1, "\n", 1) < 0) return;
  blocked("flood", 0);
}

// Four that write and sync, one file each, for as long as they live.
static void writers(void) { // A43
  for (int i = 0; i < 4; i++) {
    if (fork() != 0) continue;
    static char block[256 << 10];
    char name[32];
    snprintf(name, sizeof name, "/data/.sync%d", i);
    int fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    for (off_t place = 0; fd >= 0; place = (place + (off_t)sizeof block) % (32 << 20))
      if (pwrite(fd, block, sizeof block, place) < 0 || fsync(fd) < 0) break;
    _exit(1);
  }
  blocked("write and sync without end", 0);
}

static void stuck(void) {
  // The parent of a vfork waits, uninterruptible, for a child that has stopped.
  if (vfork() == 0) {
    syscall(SYS_kill, (pid_t)syscall(SYS_getpid), SIGSTOP);
    _exit(0);
  }
}

static void stubborn(void) { // A44
  signal(SIGTERM, SIG_IGN);
  if (fork() == 0) {
    stuck();
    hold();
  }
  // A chain of parents and children, all of which ignore what is polite.
  for (int i = 0; i < 20; i++)
    if (fork() > 0) {
      if (i % 2) raise(SIGSTOP);
      hold();
    }
  hold();
}

static void stubborn_app(void) {
  if (fork() == 0) stubborn();
  usleep(200000);
  blocked("stop me", 0);
}

static void wrap_pids(void) { // A46
  for (volatile int i = 0; i < 34000; i++) {
    pid_t child = vfork();
    if (child == 0) _exit(0);
    if (child < 0) return blocked("34000 processes one after another", errno);
    waitpid(child, NULL, 0);
  }
  blocked("34000 processes one after another", 0);
}

static void nothing(void) {}

// What an innocent app needs: asked of the canary beside the attacker.
static void innocent(void) {
  attempt("inotify_init", inotify_init1(IN_CLOEXEC));
  attempt("open", open("/dev/null", O_RDONLY | O_CLOEXEC));
  attempt("socket", socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  attempt("shmget", shmget(IPC_PRIVATE, 4096, 0600));
  char *memory = mmap(NULL, 8 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory != MAP_FAILED) memset(memory, 1, 8 * BLOCK);
  attempt("memory", memory == MAP_FAILED ? -1 : 0);
  int code = -1;
  in_child(nothing, &code);
  attempt("fork", code == 0 ? 0 : -1);
}

const struct attack resource_attacks[] = {
    {"A33", fill_files}, {"A37", fork_bomb}, {"A38", memory},  {"A38x", out_of_memory}, {"A39", busy},
    {"A40", objects},    {"A41", flood},     {"A43", writers}, {"A44", stubborn_app}, {"A46", wrap_pids}, {"innocent", innocent}, {NULL, NULL}};
