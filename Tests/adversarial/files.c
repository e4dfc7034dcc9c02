// Attacks through files: what lies outside, what is read-only, devices, set-uid files, descriptors, cgroups.
// Of the surroundings it knows what a well-informed attacker would: PROBE_SECRETS names files of the host, PROBE_SOCKETS sockets,
// both divided by colons.
#define _GNU_SOURCE
#include "probe.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

// <sys/mount.h> and <linux/fs.h> cannot be included together on every libc.
extern int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);

// Calls `each` with every path that the variable holds.
static int words(const char *variable, void (*each)(const char *path, int place)) {
  const char *value = getenv(variable);
  static char text[8192];
  snprintf(text, sizeof text, "%s", value ? value : "");
  int place = 0;
  char *rest = NULL;
  for (char *word = strtok_r(text, ":", &rest); word; word = strtok_r(NULL, ":", &rest)) each(word, ++place);
  return place;
}

// Reads a first byte: only that shows that something could be had.
static void read_file(const char *call, const char *path) {
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  char byte;
  if (fd < 0) return blocked(call, errno);
  ssize_t got = read(fd, &byte, 1);
  if (got > 0) succeeded(call, path);
  else blocked(call, got < 0 ? errno : 0);
  close(fd);
}

static void write_file(const char *call, const char *path) {
  int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return blocked(call, errno);
  succeeded(call, path);
  close(fd);
}

static void secret(const char *path, int place) {
  char call[64], way[4200];
  const char *prefixes[] = {"", "/proc/self/root", "/proc/1/root", "/proc/self/cwd/../../../..", "/dev/fd/../../../../.."};
  for (int i = 0; i < 5; i++) {
    snprintf(call, sizeof call, "open secret %d way %d", place, i + 1);
    snprintf(way, sizeof way, "%s%s", prefixes[i], path);
    read_file(call, way);
  }
}

static void outside(void) { // A01
  read_file("open /etc/shadow", "/etc/shadow");
  if (!words("PROBE_SECRETS", secret)) absent("open secret", "PROBE_SECRETS names none");
}

static void create(const char *path, int place) {
  char call[64], file[256];
  snprintf(call, sizeof call, "create in %.40s", path);
  snprintf(file, sizeof file, "%s/.probe", path);
  int fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  attempt(call, fd);
  if (fd >= 0) unlink(file), close(fd);
  (void)place;
}

static void read_only_places(void) { // A02
  const char *places[] = {"/", "/usr", "/usr/bin", "/bin", "/etc", "/dev", "/proc", "/proc/self", "/run", "/sys", "/app"};
  for (int i = 0; i < 11; i++) create(places[i], i);
  attempt("write own program", open("/proc/self/exe", O_WRONLY | O_CLOEXEC));
  attempt("rename /etc", rename("/etc", "/tmp/etc"));
  attempt("write /etc/passwd", open("/etc/passwd", O_WRONLY | O_CLOEXEC));
  attempt("chmod /etc/passwd", chmod("/etc/passwd", 0777));
}

static void kernel_files(void) { // A03
  write_file("write core_pattern", "/proc/sys/kernel/core_pattern");
  write_file("write hostname", "/proc/sys/kernel/hostname");
  write_file("write sysrq-trigger", "/proc/sysrq-trigger");
  int own = first_is_own();
  const char *parts[] = {"environ", "mem", "root/etc/shadow", "cwd/etc/shadow", "maps"};
  for (int i = 0; i < 5; i++) {
    char path[64], call[80];
    snprintf(path, sizeof path, "/proc/1/%s", parts[i]);
    snprintf(call, sizeof call, "read %s", path);
    if (own) absent(call, "pid 1 is the app's own");
    else read_file(call, path);
  }
  read_file("read kcore", "/proc/kcore");
  read_file("read kallsyms", "/proc/kallsyms");
  read_file("read keys", "/proc/keys");
  read_file("read timer_list", "/proc/timer_list");
  read_file("read sched_debug", "/proc/sched_debug");
  read_file("read interrupts", "/proc/interrupts");
  write_file("write uevent_helper", "/sys/kernel/uevent_helper");
  read_file("read vmcoreinfo", "/sys/kernel/vmcoreinfo");
}

static void devices(void) { // A06
  attempt("mknod char", mknod("/tmp/null", S_IFCHR | 0666, makedev(1, 3)));
  attempt("mknod block", mknod("/tmp/disk", S_IFBLK | 0666, makedev(254, 0)));
  // What could be made is no use if it cannot be opened.
  struct stat disk;
  if (stat("/tmp/disk", &disk) == 0) attempt("open the disk that was made", open("/tmp/disk", O_RDONLY | O_CLOEXEC));
  else absent("open the disk that was made", "none could be made");
  unlink("/tmp/disk"), unlink("/tmp/null");
  const char *names[] = {"vda", "sda", "kmsg", "mem", "kvm", "fuse", "loop-control", "vsock", "net/tun", "tty0", "vhost-vsock", "snapshot"};
  for (int i = 0; i < 12; i++) {
    char path[64];
    snprintf(path, sizeof path, "/dev/%s", names[i]);
    char call[80];
    snprintf(call, sizeof call, "open %s", path);
    attempt(call, open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  }
}

static void run_set_uid(void) {
  const char *program = getenv("PROBE_SUID");
  execl(program, program, "euid", NULL);
  _exit(3);
}

static void set_uid(void) { // A07
  int fd = open("/tmp/.probe", O_CREAT | O_WRONLY | O_CLOEXEC, 0700);
  if (fd < 0) return absent("chmod 4755", "no file can be made in /tmp");
  attempt("chmod 4755", chmod("/tmp/.probe", 04755));
  attempt("fchmod 2755", fchmod(fd, 02755));
  attempt("fchmodat2 4755", syscall(452, AT_FDCWD, "/tmp/.probe", 04755, 0));
  attempt("open with mode 4755", open("/tmp/.other", O_CREAT | O_WRONLY | O_CLOEXEC, 04755));
  attempt("mknod with mode 4755", mknod("/tmp/.third", S_IFREG | 04755, 0));
  struct {
    unsigned long flags, mode, resolve;
  } how = {O_CREAT | O_WRONLY, 04755, 0};
  attempt("openat2 with mode 4755", syscall(437, AT_FDCWD, "/tmp/.fourth", &how, sizeof how));
  unsigned capability[5] = {0x02000001, 0x3fff, 0, 0, 0};
  attempt("setxattr security.capability", fsetxattr(fd, "security.capability", capability, 20, 0));
  attempt("chown to 0", fchown(fd, 0, 0));
  if (!getenv("PROBE_SUID")) return absent("run a set-uid program", "PROBE_SUID names none");
  int code = 0;
  in_child(run_set_uid, &code);
  if (code == 0) blocked("run a set-uid program", EPERM);
  else if (code == 7) succeeded("run a set-uid program", "");
  else blocked("run a set-uid program", EACCES);
}

static int sockets_found;
static int is_socket(const char *path, const struct stat *status, int kind, struct FTW *where) {
  if (where->level == 1 && strcmp(path, "/proc") == 0) return FTW_SKIP_SUBTREE;
  // The app's own way to the supervisor is meant to be there.
  if (kind != FTW_DNR && S_ISSOCK(status->st_mode) && strcmp(path, "/run/supervisor/app.sock") != 0) {
    sockets_found++;
    succeeded("a socket in the file system", path);
  }
  return FTW_CONTINUE;
}

static void connect_to(const char *path, int place) {
  char call[64];
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(call, sizeof call, "connect to socket %d", place);
  snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  attempt(call, connect(fd, (struct sockaddr *)&address, sizeof address));
  close(fd);
}

static void sockets(void) { // A15
  nftw("/", is_socket, 64, FTW_PHYS | FTW_ACTIONRETVAL);
  if (!sockets_found) blocked("a socket in the file system", ENOENT);
  connect_to("/run/docker.sock", 901);
  connect_to("/var/run/docker.sock", 902);
  connect_to("/run/podman/podman.sock", 903);
  connect_to("/run/dbus/system_bus_socket", 904);
  words("PROBE_SOCKETS", connect_to);
}

static void foreign_sockets(void) { // A58
  if (!words("PROBE_SOCKETS", connect_to)) absent("connect to socket", "PROBE_SOCKETS names none");
}

static void descriptors(void) { // A17: what was there when the program began, as its first act noted it
  const char *links = getenv("PROBE_BEGAN_WITH");
  if (!links || !*links) return absent("descriptors", "the program did not look when it began");
  int wrong = 0;
  static char text[4096];
  snprintf(text, sizeof text, "%s", links);
  for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) {
    int number = atoi(word);
    const char *target = strchr(word, '=') + 1;
    int harmless = !strncmp(target, "pipe:", 5) || !strncmp(target, "socket:", 7) || !strcmp(target, "/dev/null");
    if (number <= 2 && harmless) continue;
    wrong++;
    succeeded("a descriptor that is not the app's", word);
  }
  if (!wrong) blocked("a descriptor that is not the app's", EBADF);
}

static void launchers(void) { // A19
  attempt("open own program for writing", open("/proc/self/exe", O_WRONLY | O_CLOEXEC));
  attempt("open /proc/1/exe for writing", open("/proc/1/exe", O_WRONLY | O_CLOEXEC));
  int held = open("/proc/1/exe", O_PATH | O_CLOEXEC);
  char way[64];
  snprintf(way, sizeof way, "/proc/self/fd/%d", held);
  if (held < 0) blocked("reopen pid 1's program", errno);
  else attempt("reopen pid 1's program", open(way, O_WRONLY | O_CLOEXEC));
}

static int writable_found;
static int is_writable(const char *path, const struct stat *status, int kind, struct FTW *where) {
  (void)status, (void)where;
  if (kind == FTW_F && access(path, W_OK) == 0) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0) writable_found++, close(fd);
  }
  return FTW_CONTINUE;
}

static void cgroups(void) { // A22
  nftw("/sys/fs/cgroup", is_writable, 64, FTW_PHYS | FTW_ACTIONRETVAL);
  if (writable_found) succeeded("a writable cgroup file", "");
  else blocked("a writable cgroup file", ENOENT);
  attempt("mkdir in a cgroup", mkdir("/sys/fs/cgroup/memory/probe", 0700));
  attempt("mount cgroup", mount("x", "/tmp", "cgroup", 0, "memory"));
  attempt("mount cgroup2", mount("x", "/tmp", "cgroup2", 0, ""));
  FILE *file = fopen("/proc/self/cgroup", "r");
  char line[4096];
  int shown = 0;
  while (file && fgets(line, sizeof line, file)) {
    char *path = strchr(strchr(line, ':') + 1, ':') + 1;
    path[strcspn(path, "\n")] = 0;
    if (strcmp(path, "/") != 0) shown++;
  }
  if (shown) succeeded("the host's cgroup paths", line);
  else blocked("the host's cgroup paths", ENOENT);
}

static void descriptors_for_writing(void) { // A25
  int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absent("reopen", "its own program cannot be read");
  char way[64];
  snprintf(way, sizeof way, "/proc/self/fd/%d", fd);
  attempt("reopen for writing", open(way, O_WRONLY | O_CLOEXEC));
  attempt("ftruncate", ftruncate(fd, 1 << 30));
  attempt("fchmod", fchmod(fd, 0777));
  void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  attempt("mmap shared for writing", memory == MAP_FAILED ? -1 : 0);
  attempt("utimensat", futimens(fd, NULL));
  attempt("setxattr", fsetxattr(fd, "user.probe", "x", 1, 0));
  attempt("FS_IOC_SETFLAGS", ioctl(fd, FS_IOC_SETFLAGS, &(unsigned){FS_NODUMP_FL}));
}

static const char *secret_path;
static void first_secret(const char *path, int place) {
  static char kept[4096];
  if (place != 1) return;
  snprintf(kept, sizeof kept, "%s", path);
  secret_path = kept;
}

static void folders(void) { // A26
  words("PROBE_SECRETS", first_secret);
  if (!secret_path) return absent("openat ..", "PROBE_SECRETS names none");
  const char *places[] = {"/", "/tmp", "/usr", "/dev", "/proc", "/proc/self", "/data"};
  for (int i = 0; i < 7; i++) {
    char call[64], way[4400];
    int folder = open(places[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    snprintf(call, sizeof call, "out of %s", places[i]);
    if (folder < 0) {
      if (errno == ENOENT) absent(call, "there is none");
      else blocked(call, errno);
      continue;
    }
    snprintf(way, sizeof way, "../../../../../../../..%s", secret_path);
    int fd = openat(folder, way, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && fchdir(folder) == 0) {
      for (int up = 0; up < 20; up++)
        if (chdir("..") < 0) break;
      fd = open(secret_path + 1, O_RDONLY | O_CLOEXEC);
    }
    attempt(call, fd);
    close(folder);
  }
}

static void links(void) { // A29
  char own[4096] = "";
  ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
  if (length < 0) return absent("link", "its own program has no name");
  attempt("link own program", link(own, "/tmp/.link"));
  attempt("link /etc/passwd", link("/etc/passwd", "/tmp/.passwd"));
  int fd = open(own, O_RDONLY | O_CLOEXEC);
  char way[64];
  snprintf(way, sizeof way, "/proc/self/fd/%d", fd);
  attempt("link a descriptor", linkat(AT_FDCWD, way, AT_FDCWD, "/tmp/.fd", AT_SYMLINK_FOLLOW));
  attempt("link an empty path", linkat(fd, "", AT_FDCWD, "/tmp/.empty", AT_EMPTY_PATH));
  attempt("exchange with /etc/passwd", renameat2(AT_FDCWD, "/tmp", AT_FDCWD, "/etc/passwd", RENAME_EXCHANGE));
}

const struct attack file_attacks[] = {
    {"A01", outside},   {"A02", read_only_places}, {"A03", kernel_files}, {"A06", devices}, {"A07", set_uid},
    {"A15", sockets},   {"A17", descriptors},      {"A19", launchers},    {"A22", cgroups}, {"A25", descriptors_for_writing},
    {"A26", folders},   {"A29", links},            {"A58", foreign_sockets}, {NULL, NULL}};
