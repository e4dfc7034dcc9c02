// Attacks on sockets of the supervisor's: by a local user who may use the control socket (PROBE_CONTROL names it), and by an app on the
// one it has, where it says that it is ready (NOTIFY_SOCKET). Each holds what it got for PROBE_HOLD seconds, so that others can be
// asked meanwhile how they do.
#define _GNU_SOURCE
#include "probe.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 4096 };
static int held[MOST];

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double hold(void) {
  const char *text = getenv("PROBE_HOLD");
  return text ? atof(text) : 1;
}

// The address of a path that may be longer than an address: its folder becomes the current one.
static int reach(const char *variable, struct sockaddr_un *address) {
  const char *path = getenv(variable);
  if (!path) return 0;
  const char *slash = strrchr(path, '/');
  char folder[4096];
  snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
  if (chdir(folder) < 0) return 0;
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  snprintf(address->sun_path, sizeof address->sun_path, "%s", slash + 1);
  return 1;
}

static struct sockaddr_un control;
static int ready(const char *call) {
  signal(SIGPIPE, SIG_IGN);
  struct rlimit files = {0};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (reach("PROBE_CONTROL", &control)) return 1;
  absent(call, "PROBE_CONTROL names no socket");
  return 0;
}

static int client(void) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, (struct sockaddr *)&control, sizeof control) == 0) return fd;
  int code = errno;
  if (fd >= 0) close(fd);
  errno = code;
  return -1;
}

// Whether the other end has closed it, once what it said is passed over.
static int is_closed(int fd) {
  char bytes[4096];
  for (;;) {
    ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got == 0) return 1;
    if (got < 0) return errno != EAGAIN;
  }
}

// Sends `text` with `count` descriptors beside it.
static ssize_t send_with(int fd, const char *text, int count, int to_notify, struct sockaddr_un *address) {
  static int null = -1;
  if (null < 0) null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  union {
    struct cmsghdr align;
    char space[CMSG_SPACE(253 * sizeof(int))];
  } extra = {0};
  struct iovec part = {(void *)(size_t)text, strlen(text)};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = extra.space,
                           .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
  if (to_notify) message.msg_name = address, message.msg_namelen = sizeof *address;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
  for (int i = 0; i < count; i++) ((int *)CMSG_DATA(header))[i] = null;
  return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// Until the server has looked, at most two seconds.
static int closes(int fd) {
  double end = seconds() + 2;
  while (seconds() < end) {
    if (is_closed(fd)) return 1;
    usleep(2000);
  }
  return 0;
}

static void rest(void) { usleep((useconds_t)(hold() * 1e6)); }

static void descriptors(void) { // A35
  if (!ready("253 descriptors at once")) return;
  int kept = 0;
  for (int i = 0; i < 1000; i++) {
    int fd = client();
    if (fd < 0) continue;
    send_with(fd, "{", 253, 0, NULL);
    if (i % 50 == 0 && !closes(fd)) kept++;
    close(fd);
  }
  if (kept) succeeded("253 descriptors at once", "");
  else blocked("253 descriptors at once", EPIPE);
  // A few with each of many calls that do not end, on as many connections as there may be.
  int open_ones = 0;
  for (int i = 0; i < 100; i++) {
    held[i] = client();
    for (int j = 0; held[i] >= 0 && j < 16; j++) {
      char call[160];
      snprintf(call, sizeof call,
               "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"event.subscribe\",\"params\":{\"follow\":true}}\n", j + 1);
      if (send_with(held[i], call, 8, 0, NULL) < 0) break;
    }
  }
  usleep(300000);
  for (int i = 0; i < 100; i++) open_ones += held[i] >= 0 && !is_closed(held[i]);
  // 64 descriptors are eight such calls.
  if (open_ones > 16) succeeded("descriptors with calls that last", "");
  else blocked("descriptors with calls that last", EPIPE);
  rest();
}

static void connections(void) { // A36
  if (!ready("connections without end")) return;
  int count = 0, open_ones = 0;
  for (double end = seconds() + 2; count < 2000 && seconds() < end; count++)
    if ((held[count] = client()) < 0) break;
  usleep(300000);
  for (int i = 0; i < count; i++) open_ones += !is_closed(held[i]);
  if (open_ones > 64) succeeded("connections without end", "");
  else blocked("connections without end", EDQUOT);
  for (int i = 0; i < count; i++)
    if (write(held[i], "Content-Length: 10\r\n", 20) < 0) continue;
  double end = seconds() + hold();
  int loops = 0;
  while (seconds() < end) {
    int fd = client();
    if (fd >= 0) close(fd);
    loops++;
  }
  blocked("connecting and leaving", 0);
}

static void say(int fd, const char *method, const char *parameters, int id) {
  char call[512];
  int length = snprintf(call, sizeof call, "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"%s\",\"params\":%s}\n", id, method, parameters);
  if (send(fd, call, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return;
}

static void never_reads(void) { // A42
  if (!ready("subscribing without reading")) return;
  for (int i = 0; i < 64; i++) {
    held[i] = client();
    if (held[i] < 0) continue;
    for (int j = 0; j < 64; j++) say(held[i], "event.subscribe", "{\"after\":0,\"follow\":true}", j + 1);
    for (int j = 0; j < 64; j++) say(held[i], "api.list", "{}", 100 + j);
  }
  rest();
  blocked("subscribing without reading", 0);
}

static void calls(void) { // A47
  if (!ready("calls without end")) return;
  int many = 60;
  for (int i = 0; i < many; i++) held[i] = client();
  double end = seconds() + hold();
  static char bytes[65536];
  long answered = 0;
  int id = 0;
  while (seconds() < end)
    for (int i = 1; i < many; i++) {
      if (held[i] < 0) continue;
      for (int j = 0; j < 8; j++) say(held[i], j % 2 ? "app.list" : "version", "{}", ++id);
      ssize_t got = recv(held[i], bytes, sizeof bytes, MSG_DONTWAIT);
      for (ssize_t k = 0; k < got; k++) answered += bytes[k] == '\n';
    }
  if (answered) blocked("calls without end", 0);
  else absent("calls without end", "none was answered");
  // Those that end when they like.
  for (int i = 0; i < 10000; i++) say(held[0], "event.subscribe", "{\"follow\":true}", i + 1);
  rest();
  blocked("calls that last", 0);
}

static void large(void) { // A48: what is held of frames that do not end, or are as long as they may be
  if (!ready("frames that do not end")) return;
  size_t size = 4 << 20;
  char *part = malloc(size);
  memset(part, '1', size);
  part[0] = '[';
  for (size_t i = 2; i < size; i += 2) part[i] = ',';
  size_t taken = 0;
  for (int i = 0; i < 60; i++) {
    held[i] = client();
    if (held[i] < 0) continue;
    for (size_t sent = 0; sent < size - 1;) {
      struct pollfd wait = {held[i], POLLOUT, 0};
      if (poll(&wait, 1, 20) <= 0) break;
      ssize_t got = send(held[i], part + sent, size - 1 - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (got <= 0) break;
      sent += (size_t)got, taken += (size_t)got;
    }
  }
  // What the kernel keeps of each connection is the sender's own.
  if (taken > 32u << 20) succeeded("frames that do not end", "");
  else blocked("frames that do not end", EAGAIN);
  rest();
}

static void notify(void) { // A35n: the app's own socket
  struct sockaddr_un address;
  if (!reach("NOTIFY_SOCKET", &address)) return absent("descriptors to the notify socket", "there is none");
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&address, sizeof address);
  long sent = 0;
  for (double end = seconds() + hold(); seconds() < end;) {
    sent += send_with(fd, "STATUS=\x1b[2Jhere", 253, 1, &address) > 0;
    static char block[65536];
    memset(block, 'x', sizeof block);
    sendto(fd, block, sizeof block, MSG_DONTWAIT, (struct sockaddr *)&address, sizeof address);
  }
  if (sent) blocked("descriptors to the notify socket", 0);
  else absent("descriptors to the notify socket", "none could be sent");
}

const struct attack client_attacks[] = {{"A35", descriptors}, {"A35n", notify}, {"A36", connections}, {"A42", never_reads},
                                        {"A47", calls},       {"A48", large},   {NULL, NULL}};
