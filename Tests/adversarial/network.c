// Attacks through sockets: families nobody needs, the host's network, its abstract sockets and processes.
// PROBE_PORT is a TCP port that is open on the host's 127.0.0.1, PROBE_ADDRESSES are the host's other addresses (divided by commas),
// PROBE_ABSTRACT the name of an abstract socket there, PROBE_PIDS processes of the host.
#define _GNU_SOURCE
#include "probe.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static void families(void) { // A12
  static const struct {
    const char *name;
    long family, type, protocol;
  } wanted[] = {
      {"AF_VSOCK", 40, 1, 0},      {"AF_VSOCK with an upper half", 40L | 1L << 32, 1, 0},
      {"AF_ALG", 38, 5, 0},        {"AF_PACKET", 17, 3, 0},
      {"AF_BLUETOOTH", 31, 3, 1},  {"AF_XDP", 44, 3, 0},
      {"AF_KEY", 15, 3, 2},        {"AF_CAN", 29, 3, 1},
      {"AF_TIPC", 30, 1, 0},       {"AF_KCM", 41, 2, 0},
      {"AF_SMC", 43, 1, 0},        {"AF_QIPCRTR", 42, 2, 0},
      {"AF_RDS", 21, 5, 0},        {"AF_IB", 27, 1, 0},
      {"AF_APPLETALK", 5, 2, 0},   {"AF_X25", 9, 5, 0},
      {"INET raw", 2, 3, 1},       {"INET6 raw", 10, 3, 58},
      {"NETLINK netfilter", 16, 3, 12}, {"NETLINK audit", 16, 3, 9},
      {"NETLINK kobject", 16, 3, 15},   {"NETLINK xfrm", 16, 3, 6},
      {"NETLINK generic", 16, 3, 16},
  };
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
    long fd = attempt(wanted[i].name, syscall(SYS_socket, wanted[i].family, wanted[i].type, wanted[i].protocol));
    if (fd >= 0) close((int)fd);
  }
}

// Connects, and waits a second for an answer, which a silent drop would not give.
static void connect_to(const char *call, const char *address, int port, int type) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)port)};
  int is_v4 = inet_pton(AF_INET, address, &v4.sin_addr) == 1;
  if (!is_v4 && inet_pton(AF_INET6, address, &v6.sin6_addr) != 1) return absent(call, "not an address");
  int fd = socket(is_v4 ? AF_INET : AF_INET6, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return blocked(call, errno);
  long answer = is_v4 ? connect(fd, (struct sockaddr *)&v4, sizeof v4) : connect(fd, (struct sockaddr *)&v6, sizeof v6);
  if (answer < 0 && errno == EINPROGRESS) {
    struct pollfd wait = {fd, POLLOUT, 0};
    int code = ETIMEDOUT;
    socklen_t length = sizeof code;
    if (poll(&wait, 1, 1000) > 0) getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length);
    errno = code;
    answer = code ? -1 : 0;
  }
  if (answer == 0 && type == SOCK_DGRAM) answer = send(fd, "probe", 5, 0);
  attempt(call, answer);
  close(fd);
}

static void host_network(void) { // A13
  const char *port = getenv("PROBE_PORT");
  const char *addresses = getenv("PROBE_ADDRESSES");
  if (!port || !addresses) return absent("connect", "PROBE_PORT and PROBE_ADDRESSES are not set");
  connect_to("tcp 127.0.0.1", "127.0.0.1", atoi(port), SOCK_STREAM);
  connect_to("tcp ::1", "::1", atoi(port), SOCK_STREAM);
  connect_to("tcp 169.254.169.254", "169.254.169.254", 80, SOCK_STREAM);
  connect_to("udp dns", "192.0.2.53", 53, SOCK_DGRAM);
  connect_to("tcp dns", "192.0.2.53", 53, SOCK_STREAM);
  connect_to("udp v6", "2001:db8::1", 53, SOCK_DGRAM);
  static char text[1024];
  snprintf(text, sizeof text, "%s", addresses);
  int place = 0;
  for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
    char call[64];
    snprintf(call, sizeof call, "tcp host address %d", ++place);
    connect_to(call, word, atoi(port), SOCK_STREAM);
  }
}

static void abstract(void) { // A14
  const char *name = getenv("PROBE_ABSTRACT");
  if (!name) absent("connect to an abstract socket", "PROBE_ABSTRACT is not set");
  else {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    memcpy(address.sun_path + 1, name, length);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    attempt("connect to an abstract socket",
            connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)));
    close(fd);
  }
  const char *pids = getenv("PROBE_PIDS");
  if (!pids) return absent("signal a host process", "PROBE_PIDS is not set");
  static char text[256];
  snprintf(text, sizeof text, "%s", pids);
  int place = 0;
  for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
    char call[64];
    snprintf(call, sizeof call, "signal host process %d", ++place);
    attempt(call, kill(atoi(word), 0));
  }
}

const struct attack network_attacks[] = {{"A12", families}, {"A13", host_network}, {"A14", abstract}, {NULL, NULL}};
