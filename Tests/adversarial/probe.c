// The program that is run as an app. `probe ATTACK…` runs attacks to their end, `probe stay ATTACK…` stays afterwards,
// `probe itself ATTACK` is the attack in its first process, and `probe serve` waits for the names of attacks at the FIFO
// /control/ask and answers at /control/answer. One JSON line each:
//   {"attack":"A04","verdict":"blocked","steps":[["mount","blocked","EPERM"],["umount2","blocked","EPERM"]]}
// The verdict is `succeeded` if any step did, `died` if the attack ended otherwise than it should, `absent` if nothing could be
// tried, else `blocked`.
#define _GNU_SOURCE
#include "probe.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// Steps go through a pipe, so that those of an attack that dies are not lost.
static int report = -1;

static void step(const char *call, const char *result, const char *detail) {
  char line[512];
  int length = snprintf(line, sizeof line, "[\"%s\",\"%s\",\"%s\"],", call, result, detail);
  if (length > 0 && write(report, line, (size_t)length) < 0) _exit(99);
}

void blocked(const char *call, int code) {
  const char *name = strerrorname_np(code);
  step(call, "blocked", name ? name : "0");
}

void succeeded(const char *call, const char *detail) { step(call, "succeeded", detail); }
void absent(const char *call, const char *why) { step(call, "absent", why); }

long attempt(const char *call, long answer) {
  if (answer < 0) blocked(call, errno);
  else succeeded(call, "");
  return answer;
}

long attempt_or(const char *call, long answer, int not_tried, const char *why) {
  if (answer < 0 && errno == not_tried) {
    absent(call, why);
    return answer;
  }
  return attempt(call, answer);
}

int in_child(void (*body)(void), int *code) {
  int status = 0;
  pid_t child = fork();
  if (child == 0) {
    body();
    _exit(0);
  }
  while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
    ;
  if (code) *code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return child > 0 && WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

int first_is_own(void) {
  struct stat first, self;
  char target[8];
  return stat("/proc/1", &first) == 0 && stat("/proc/self", &self) == 0 && first.st_uid == self.st_uid &&
         readlink("/proc/1/exe", target, sizeof target) > 0;
}

static const struct attack *find(const char *name) {
  const struct attack *lists[] = {file_attacks, kernel_attacks, network_attacks, resource_attacks, client_attacks};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
    for (const struct attack *attack = lists[i]; attack->name; attack++)
      if (strcmp(attack->name, name) == 0) return attack;
  return NULL;
}

// The line of one attack, in memory of this function's; it runs in a process of its own.
static const char *run(const char *name) {
  static char steps[1 << 16], line[sizeof steps + 128];
  const struct attack *attack = find(name);
  if (!attack) {
    snprintf(line, sizeof line, "{\"attack\":\"%.20s\",\"verdict\":\"unknown\",\"steps\":[]}\n", name);
    return line;
  }
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) exit(98);
  pid_t child = fork();
  if (child == 0) {
    report = ends[1];
    close(ends[0]);
    attack->run();
    _exit(42);
  }
  close(ends[1]);
  // Until the attack has ended, not until nobody can write: it may leave processes behind. What it says fits into the pipe.
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR)
    ;
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  ssize_t length = read(ends[0], steps, sizeof steps - 1);
  steps[length > 0 ? length - 1 : 0] = 0;
  close(ends[0]);
  const char *verdict = "absent";
  if (strstr(steps, "\",\"blocked\",\"")) verdict = "blocked";
  if (strstr(steps, "\",\"succeeded\",\"")) verdict = "succeeded";
  if (child < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 42) verdict = "died";
  snprintf(line, sizeof line, "{\"attack\":\"%s\",\"verdict\":\"%s\",\"steps\":[%s]}\n", name, verdict, steps);
  return line;
}

static void tell(int fd, const char *line) {
  if (write(fd, line, strlen(line)) < 0) exit(97);
}

// Sends back what comes, to one after another, on a TCP port.
static int echo(int port) {
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 16) < 0) return 94;
  for (;;) {
    int visitor = accept(listener, NULL, NULL);
    char bytes[256];
    ssize_t got;
    while (visitor >= 0 && (got = read(visitor, bytes, sizeof bytes)) > 0)
      if (write(visitor, bytes, (size_t)got) < 0) break;
    close(visitor);
  }
}

static int serve(void) {
  FILE *ask = fopen("/control/ask", "r+");
  int answer = open("/control/answer", O_RDWR | O_CLOEXEC);
  char name[32];
  if (!ask || answer < 0) return 96;
  fcntl(fileno(ask), F_SETFD, FD_CLOEXEC);
  while (fscanf(ask, "%31s", name) == 1) {
    const char *line = run(name);
    tell(1, line);
    tell(answer, line);
  }
  return 95;
}

// What is open when the program begins, for the attack that asks: `0=pipe:[12] 1=…`.
static void look_at_descriptors(void) {
  char all[4096] = "", path[32], target[512];
  for (int fd = 0; fd < 1024; fd++) {
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0) continue;
    target[length] = 0;
    size_t used = strlen(all);
    snprintf(all + used, sizeof all - used, "%d=%s ", fd, target);
  }
  setenv("PROBE_BEGAN_WITH", all, 1);
}

int main(int count, char **words) {
  look_at_descriptors();
  const char *mode = count > 1 ? words[1] : "";
  if (strcmp(mode, "serve") == 0) return serve();
  if (strcmp(mode, "echo") == 0) return echo(count > 2 ? atoi(words[2]) : 7);
  if (strcmp(mode, "euid") == 0) return geteuid() == getuid() && getegid() == getgid() ? 0 : 7;
  int stays = strcmp(mode, "stay") == 0, itself = strcmp(mode, "itself") == 0;
  for (int i = stays || itself ? 2 : 1; i < count; i++) {
    const struct attack *attack = itself ? find(words[i]) : NULL;
    if (attack) {
      // In this very process, whose end is what the test looks at.
      report = open("/dev/null", O_WRONLY | O_CLOEXEC);
      tell(1, "begun\n");
      attack->run();
    } else tell(1, run(words[i]));
  }
  while (stays) pause();
  return 0;
}
