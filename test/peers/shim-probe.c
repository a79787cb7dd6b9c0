/* Calls that no usual program makes all of, each on paths of the machine and compared with what a kernel would say.
 *   shim-probe UUID|- [valgrind]     "-": only what needs no machine; valgrind: without what it does not know
 * Prints a line for each thing that is wrong. Exit code 1: there was one. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define BUS "/sys/bus/vmbus"
#define EXPECT(condition) ((condition) ? (void)0 : wrong(#condition, __LINE__))
#define PRESENT (UINT64_C(1) << 63)
#define NUMBER ((UINT64_C(1) << 55) - 1)

static int faults;
static const char *uuid;
static int checked_by_valgrind;
/* A thread-local that is laid out when the program starts, as libraries with static TLS have it. */
static __thread char own[4096] __attribute__((tls_model("initial-exec")));

static void wrong(const char *what, int line) {
  printf("line %d: not so: %s (errno %s)\n", line, what, strerror(errno));
  faults++;
}

static const char *in_bus(const char *rest) {
  static __thread char path[PATH_MAX + 128];
  snprintf(path, sizeof path, BUS "/devices/%.64s%s", uuid, rest);
  return path;
}

static char first_byte(int fd) {
  char byte = 0;
  if (fd < 0 || read(fd, &byte, 1) != 1) byte = 0;
  if (fd >= 0) close(fd);
  return byte;
}

static int walked, walked_wrong;
static int visit(const char *path, const struct stat *about, int type, struct FTW *where) {
  (void)about;
  (void)type;
  walked++;
  if (strncmp(path, BUS, strlen(BUS)) != 0 || (where->base > 0 && path[where->base - 1] != '/')) walked_wrong++;
  return 0;
}

static void paths(void) {
  char path[PATH_MAX + 128], here[PATH_MAX];
  struct stat one, two;
  struct statvfs fs;
  static const char *const same[] = {"/id", "//id", "/./id", "/../%s/id", "/channels/../id", "/driver/../../devices/%s/id",
                                     "/../../../../../sys/bus/vmbus/devices/%s/id", "/../../../../bus/./vmbus//devices/%s/id"};
  EXPECT(stat(in_bus("/id"), &one) == 0);
  for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
    char rest[PATH_MAX];
    snprintf(rest, sizeof rest, same[i], uuid);
    snprintf(path, sizeof path, "%s", in_bus(rest));
    if (stat(path, &two) != 0 || two.st_ino != one.st_ino || two.st_dev != one.st_dev) wrong(path, __LINE__);
  }
  errno = 0;
  EXPECT(open(in_bus("/id/"), O_RDONLY) == -1 && errno == ENOTDIR);
  EXPECT(open("/dev/uio0/", O_RDONLY) == -1);
  EXPECT(access("/dev/uio0.map0", F_OK) == -1 && errno == ENOENT);
  EXPECT(access("/dev/uio999999999999", F_OK) == -1 && errno == ENOENT);
  EXPECT(access("/sys/bus/vmbusx", F_OK) == -1 && errno == ENOENT);
  EXPECT(access("/sys/bus/vmbus/../vmbus/devices", F_OK) == 0);
  EXPECT(stat("/sys/bus/vmbus/..", &one) == 0 && stat("/sys/bus", &two) == 0 && one.st_ino == two.st_ino);
  EXPECT(stat("/sys/bus/vmbus/../../../dev", &one) == 0 && stat("/dev", &two) == 0 && one.st_ino == two.st_ino);
  const char *volatile nowhere = NULL;
  if (!checked_by_valgrind) EXPECT(open(nowhere, O_RDONLY) == -1 && errno == EFAULT);
  memset(path, 'x', sizeof path);
  memcpy(path, BUS "/", sizeof BUS);
  path[sizeof path - 1] = 0;
  EXPECT(open(path, O_RDONLY) == -1 && (errno == ENAMETOOLONG || errno == ENOENT));

  int bus = open("/sys/bus", O_RDONLY | O_DIRECTORY), dev = open("/dev", O_PATH);
  EXPECT(fstatat(bus, "vmbus", &one, 0) == 0 && fstatat(bus, "./x/../vmbus/devices/..", &two, 0) == 0 && one.st_ino == two.st_ino);
  EXPECT(faccessat(dev, "uio0", R_OK | W_OK, 0) == 0);
  snprintf(path, sizeof path, "vmbus/devices/%s/id", uuid);
  EXPECT(first_byte(openat(bus, path, O_RDONLY)) == '1');
  EXPECT(getcwd(here, sizeof here) && chdir(in_bus("")) == 0);
  EXPECT(getcwd(path, sizeof path) && strcmp(path, in_bus("")) == 0);
  EXPECT(getcwd(path, strlen(in_bus("")) + 1) == path && strcmp(path, in_bus("")) == 0);
  EXPECT(getcwd(path, strlen(in_bus(""))) == NULL && errno == ERANGE);
  EXPECT(first_byte(open("id", O_RDONLY)) == '1');
  EXPECT(access("../../../../../dev/uio0", F_OK) == 0);
  EXPECT(realpath("../..", path) && strcmp(path, BUS) == 0);
  EXPECT(chdir(here) == 0);
  close(bus);
  close(dev);

  struct open_how how = {.flags = O_RDONLY | O_CLOEXEC};
  if (!checked_by_valgrind) EXPECT(first_byte((int)syscall(SYS_openat2, AT_FDCWD, in_bus("/id"), &how, sizeof how)) == '1');
  EXPECT(first_byte((int)syscall(SYS_openat, AT_FDCWD, in_bus("/id"), O_RDONLY, 0)) == '1');
  struct statx x;
  EXPECT(syscall(SYS_statx, AT_FDCWD, BUS, 0, STATX_BASIC_STATS, &x) == 0 && S_ISDIR(x.stx_mode));
  EXPECT(syscall(SYS_getpid) == getpid());
  EXPECT(syscall(SYS_openat, AT_FDCWD, "/no/such", O_RDONLY, 0) == -1 && errno == ENOENT);
  EXPECT(statvfs(BUS, &fs) == 0);
  FILE *stream = fopen64(in_bus("/id"), "r");
  EXPECT(stream && fgetc(stream) == '1');
  if (stream) EXPECT((stream = freopen(in_bus("/class_id"), "r", stream)) && fgetc(stream) == '{');
  if (stream) fclose(stream);

  glob_t found;
  EXPECT(glob(BUS "/devices/*/id", GLOB_NOSORT, NULL, &found) == 0 && found.gl_pathc == 2);
  for (size_t i = 0; i < found.gl_pathc; i++) EXPECT(strncmp(found.gl_pathv[i], BUS, strlen(BUS)) == 0);
  globfree(&found);
  EXPECT(glob(BUS "//x*", GLOB_NOCHECK, NULL, &found) == 0 && strcmp(found.gl_pathv[0], BUS "//x*") == 0);
  globfree(&found);
  EXPECT(nftw(BUS, visit, 8, FTW_PHYS) == 0 && walked > 20 && walked_wrong == 0);
  struct dirent **list;
  int count = scandir(BUS "/devices/", &list, NULL, alphasort);
  EXPECT(count == 4);
  for (int i = 0; i < count; i++) free(list[i]);
  if (count >= 0) free(list);
}

/* Paths of all shapes: none may crash, and all must end where the same names end without detours. */
static void shapes(void) {
  static const char *const parts[] = {"sys", "bus", "vmbus", "devices", "..", ".", "", "dev", "uio0", "uio", "driver", "x"};
  unsigned seed = 1;
  for (int i = 0; i < 20000; i++) {
    char path[256] = "";
    seed = seed * 1103515245u + 12345u;
    int n = (int)(seed >> 16) % 12;
    for (int k = 0; k < n; k++) {
      seed = seed * 1103515245u + 12345u;
      if (k || seed & 0x1000000) strcat(path, "/");
      strcat(path, parts[(seed >> 16) % (sizeof parts / sizeof *parts)]);
    }
    struct stat about;
    char resolved[PATH_MAX];
    if (lstat(path, &about) == 0 && realpath(path, resolved) && lstat(resolved, &about) != 0) wrong(path, __LINE__);
  }
}

static uint64_t entry_at(int fd, const void *address) {
  uint64_t entry = 0;
  off_t at = (off_t)((uintptr_t)address / (uintptr_t)sysconf(_SC_PAGESIZE) * 8);
  if (pread(fd, &entry, sizeof entry, at) != sizeof entry) wrong("pread of a pagemap", __LINE__);
  return entry;
}

static void addresses(void) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  char *memory = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char path[64];
  memory[0] = memory[2 * page] = 1;
  uint64_t first = (uintptr_t)memory / page, entries[4];
  const char *const names[] = {"/proc/self/pagemap", "/proc/thread-self/pagemap", path};
  snprintf(path, sizeof path, "/proc/%d/pagemap", getpid());
  for (int i = 0; i < 3; i++) {
    int fd = open(names[i], O_RDONLY);
    EXPECT(lseek(fd, (off_t)(first * 8), SEEK_SET) == (off_t)(first * 8));
    EXPECT(read(fd, entries, sizeof entries) == sizeof entries);
    EXPECT((entries[0] & PRESENT) && (entries[0] & NUMBER) == first);
    EXPECT((entries[2] & PRESENT) && (entries[2] & NUMBER) == first + 2);
    EXPECT(!(entries[1] & PRESENT) && !(entries[3] & PRESENT));
    int copy = dup(fd);
    close(fd);
    EXPECT((entry_at(copy, memory) & NUMBER) == first);
    struct iovec vector[] = {{entries, 8}, {entries + 1, 16}};
    memset(entries, 0, sizeof entries);
    EXPECT(preadv(copy, vector, 2, (off_t)(first * 8)) == 24);
    EXPECT((entries[0] & NUMBER) == first && (entries[2] & NUMBER) == first + 2);
    pid_t child = fork();
    if (child == 0) _exit((entry_at(copy, memory) & NUMBER) == first ? 0 : 1);
    int status = -1;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    close(copy);
  }
  FILE *stream = fopen("/proc/self/pagemap", "r");
  EXPECT(stream && fseek(stream, (long)(first * 8), SEEK_SET) == 0);
  EXPECT(fread(entries, 1, 3, stream) == 3 && fread((char *)entries + 3, 1, 21, stream) == 21);
  EXPECT((entries[0] & NUMBER) == first && (entries[2] & NUMBER) == first + 2);
  fclose(stream);
  /* Other files are as they are. */
  int zero = open("/dev/zero", O_RDONLY);
  EXPECT(read(zero, entries, sizeof entries) == sizeof entries && entries[0] == 0 && entries[3] == 0);
  close(zero);
  EXPECT(mlock(memory, 4 * page) == 0);
  int fd = open("/proc/self/pagemap", O_RDONLY);
  EXPECT(entry_at(fd, memory + page) & PRESENT);
  close(fd);
  EXPECT(mlock((void *)(64 * page), page) == -1 && (errno == ENOMEM || errno == EPERM));
  EXPECT(access("/proc/sys/vm/compact_unevictable_allowed", F_OK) == -1 && errno == ENOENT);
  munmap(memory, 4 * page);
}

static void *open_often(void *result) {
  own[0] = own[sizeof own - 1] = 1;
  for (int i = 0; i < 50; i++) {
    int fd = open("/dev/uio0", O_RDWR | O_CLOEXEC);
    if (fd < 0) return result;
    close(fd);
  }
  return NULL;
}

static void nodes(void) {
  int held = open("/dev/uio0", O_RDWR), path_only = open("/dev/uio0", O_PATH | O_CLOEXEC);
  EXPECT(held >= 0 && path_only >= 0);
  void *rings = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, held, 0);
  void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, held, 2 * sysconf(_SC_PAGESIZE));
  EXPECT(rings != MAP_FAILED && page != MAP_FAILED);
  EXPECT(mmap(NULL, 4096, PROT_READ, MAP_SHARED, held, 5 * sysconf(_SC_PAGESIZE)) == MAP_FAILED);
  uint32_t word = 1;
  EXPECT(write(held, &word, sizeof word) == sizeof word);
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) EXPECT(pthread_create(&threads[i], NULL, open_often, &faults) == 0);
  /* Children that are made while others open. */
  for (int i = 0; i < 20; i++) {
    pid_t child = i % 2 ? fork() : vfork();
    if (child == 0) {
      if (i % 2 == 0) _exit(access("/dev/uio0", F_OK) == 0 ? 0 : 1);
      int fd = open("/dev/uio0", O_RDWR);
      _exit(fd >= 0 ? 0 : 1);
    }
    int status = -1;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
  }
  for (int i = 0; i < 4; i++) {
    void *failed = &faults;
    EXPECT(pthread_join(threads[i], &failed) == 0 && failed == NULL);
  }
  close(path_only);
  close(held);
  EXPECT(read(held, &word, sizeof word) == -1 && errno == EBADF);
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  uuid = argv[1];
  checked_by_valgrind = argc > 2;
  addresses();
  if (strcmp(uuid, "-") != 0) {
    paths();
    shapes();
    nodes();
  }
  printf("%d wrong\n", faults);
  fflush(stdout);
  return faults > 0;
}
