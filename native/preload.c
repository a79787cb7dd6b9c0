/* Shows a program the devices of a machine directory where a kernel would show its own: /sys/bus/vmbus and /dev/uioN are
 * looked up below $NETVSC_ROOT, and what the kernel calls a physical address is the virtual one, since that is how the host
 * finds the program's memory. `netvsc run` builds and preloads it.
 *
 * An open uio node is a connected Unix socket: poll, read (interrupt count) and write (interrupt control) work on it as on
 * a uio_hv_generic node, mmap is turned to the file of the map that the offset names. Which descriptors are such sockets is
 * asked of the kernel each time, so close, dup, fork and exec need no bookkeeping. */
#include "preload.h"
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define UIO "/dev/uio"
/* A host that is alive answers within its tick. */
#define OPEN_TIMEOUT_MS 10000
/* Where to look for a descriptor that already has the node open. */
#define DESCRIPTORS_MAX 4096
#define LINE_MAX_BYTES 4400

char shim_root[PATH_MAX];
size_t shim_root_length;
long shim_page_bytes = 4096;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

/* Without stdio, which allocates. */
void shim_complain(const char *what, const char *path, const char *why) {
  char line[LINE_MAX_BYTES];
  int saved = errno;
  int length = snprintf(line, sizeof line, "netvsc run: %s %s: %s\n", what, path, why);
  if (length >= (int)sizeof line) length = sizeof line - 1;
  if (length > 0 && shim_syscall(SYS_write, 2, line, length) < 0) errno = saved;
  errno = saved;
}

void *shim_next(const char *name) {
  void *next = dlsym(RTLD_NEXT, name);
  if (next) return next;
  shim_complain("libc has no", name, "cannot go on");
  _exit(127);
}

/* A thread that is in the middle of opening is not there in the child. */
static void forked(void) { pthread_mutex_init(&opening, NULL); }

__attribute__((constructor)) static void begin(void) {
  const char *given = getenv("NETVSC_ROOT");
  shim_page_bytes = sysconf(_SC_PAGESIZE);
  if (!given || !*given) return;
  size_t length = strlen(given);
  if (given[0] != '/' || length >= sizeof shim_root) {
    shim_complain("NETVSC_ROOT", given, "expected an absolute path");
    return;
  }
  memcpy(shim_root, given, length + 1);
  shim_root_length = length;
  pthread_atfork(NULL, NULL, forked);
  shim_note_inherited();
}

#ifdef SHIM_OWN_SYSCALLS
long shim_syscall6(long number, long a, long b, long c, long d, long e, long f) {
#ifdef __x86_64__
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
#else
  register long x8 __asm__("x8") = number;
  register long result __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(result) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
#endif
  if (result >= 0 || result < -4095) return result;
  errno = (int)-result;
  return -1;
}
#endif

/* --- uio nodes --------------------------------------------------------------------------------------------------- */

static int same_file(const char *a, const char *b) {
  struct stat one, two;
  if (fstatat(AT_FDCWD, a, &one, 0) != 0 || fstatat(AT_FDCWD, b, &two, 0) != 0) return 0;
  return one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

/* Number of the uio node that a descriptor is an open one of, or -1. errno is kept. */
static int uio_of(int fd) {
  struct sockaddr_un peer;
  socklen_t length = sizeof peer;
  int saved = errno;
  int number = -1;
  if (!shim_root_length || fd < 0) return -1;
  memset(&peer, 0, sizeof peer);
  if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && peer.sun_family == AF_UNIX) {
    char path[sizeof peer.sun_path + 1], node[PATH_MAX];
    memcpy(path, peer.sun_path, sizeof peer.sun_path);
    path[sizeof peer.sun_path] = 0;
    const char *tail = strrchr(path, '/');
    if (tail && tail - path >= 4 && (number = shim_uio_number(tail - 4)) >= 0) {
      int length = snprintf(node, sizeof node, "%s%s", shim_root, tail - 4);
      if (length >= (int)sizeof node || (strcmp(path, node) != 0 && !same_file(path, node))) number = -1;
    }
  }
  errno = saved;
  return number;
}

/* A kernel's open() returns when the channel is open. So does ours: the host's first word says so, its hanging up that
 * somebody else has the channel. */
static int await_host(int fd) {
  struct pollfd wait = {.fd = fd, .events = POLLIN};
  unsigned char word[4];
  size_t got = 0;
  while (got < sizeof word) {
    int ready = poll(&wait, 1, OPEN_TIMEOUT_MS);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return ready < 0 ? errno : ETIMEDOUT;
    ssize_t n = recv(fd, word + got, sizeof word - got, MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) return EBUSY;
    got += (size_t)n;
  }
  return 0;
}

/* Connects to the node's socket, however long its path is. Returns 0 or an error number. */
static int connect_node(int fd, const char *node) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const char *name = strrchr(node, '/') + 1;
  char folder[PATH_MAX];
  int directory = -1, error = 0;
  if (strlen(node) < sizeof address.sun_path) memcpy(address.sun_path, node, strlen(node) + 1);
  else {
    memcpy(folder, node, (size_t)(name - node));
    folder[name - node] = 0;
    directory = (int)shim_syscall(SYS_openat, AT_FDCWD, folder, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (directory < 0) return errno;
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%.32s", directory, name);
  }
  while (connect(fd, (struct sockaddr *)&address, sizeof address) != 0 && error == 0) {
    if (errno != EINTR) error = errno;
  }
  if (directory >= 0) close(directory);
  return error;
}

static int connect_host(const char *path, const char *node, int flags) {
  struct ucred host;
  socklen_t length = sizeof host;
  int type = SOCK_STREAM | ((flags & O_CLOEXEC) ? SOCK_CLOEXEC : 0);
  int fd = socket(AF_UNIX, type, 0);
  if (fd < 0) return -1;
  int error = connect_node(fd, node);
  if (error == 0) error = await_host(fd);
  if (error != 0) {
    close(fd);
    errno = error == ECONNREFUSED ? ENODEV : error;
    const char *why = error == ECONNREFUSED || error == ENOENT ? "no host serves it"
                      : error == EBUSY                         ? "another process has the channel open, or the host refused this user"
                      : error == ETIMEDOUT                     ? "the host does not answer"
                                                               : strerror(error);
    shim_complain("cannot open", path, why);
    return -1;
  }
  /* Where only ancestors may read a process's memory (Yama), the host may, too. */
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &host, &length) == 0) prctl(PR_SET_PTRACER, (unsigned long)host.pid, 0, 0, 0);
  if (flags & O_NONBLOCK) fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

/* As a kernel, opens the channel at the first open and shares it with the later ones; the last close ends it. */
int shim_open_node(int number, const char *use, int flags) {
  static int last = -1;
  int fd = -1, state;
  /* Not to be cancelled while it holds the lock. */
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  pthread_mutex_lock(&opening);
  int shared = uio_of(last) == number ? last : -1;
  for (int i = 0; shared < 0 && i < DESCRIPTORS_MAX; i++) {
    if (uio_of(i) == number) shared = i;
  }
  if (shared >= 0) fd = fcntl(shared, (flags & O_CLOEXEC) ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
  else fd = connect_host(use + shim_root_length, use, flags);
  if (fd >= 0 && shared < 0) last = fd;
  pthread_mutex_unlock(&opening);
  pthread_setcancelstate(state, NULL);
  return fd;
}

/* --- open -------------------------------------------------------------------------------------------------------- */

/* A mode follows the flags only when a file may be made. */
#define MODE(flags)                                                                    \
  mode_t mode = 0;                                                                     \
  if ((flags) & (O_CREAT | O_TMPFILE)) {                                               \
    va_list list;                                                                      \
    va_start(list, flags);                                                             \
    mode = (mode_t)va_arg(list, unsigned);                                             \
    va_end(list);                                                                      \
  }

/* What to open (`use`); returns the descriptor for a uio node. */
#define REDIRECT(at)                                                                   \
  char buffer[PATH_MAX];                                                               \
  int node;                                                                            \
  const char *use = shim_redirect(at, path, buffer, &node);                            \
  if (node >= 0 && !(flags & O_PATH)) return shim_open_node(node, use, flags);         \
  shim_note_open(use);

#define OPEN(name)                                                                     \
  NEXT(int, name, const char *, int, ...)                                              \
  EXPORT int name(const char *path, int flags, ...) {                                  \
    MODE(flags)                                                                        \
    REDIRECT(AT_FDCWD)                                                                 \
    return next_##name()(use, flags, mode);                                            \
  }
OPEN(open)
OPEN(open64)

#define OPEN_FORTIFIED(name)                                                           \
  NEXT(int, name, const char *, int)                                                   \
  EXPORT int name(const char *path, int flags) {                                       \
    REDIRECT(AT_FDCWD)                                                                 \
    return next_##name()(use, flags);                                                  \
  }
OPEN_FORTIFIED(__open_2)
OPEN_FORTIFIED(__open64_2)

#define OPENAT(name)                                                                   \
  NEXT(int, name, int, const char *, int, ...)                                         \
  EXPORT int name(int at, const char *path, int flags, ...) {                          \
    MODE(flags)                                                                        \
    REDIRECT(at)                                                                       \
    return next_##name()(at, use, flags, mode);                                        \
  }
OPENAT(openat)
OPENAT(openat64)

#define OPENAT_FORTIFIED(name)                                                         \
  NEXT(int, name, int, const char *, int)                                              \
  EXPORT int name(int at, const char *path, int flags) {                               \
    REDIRECT(at)                                                                       \
    return next_##name()(at, use, flags);                                              \
  }
OPENAT_FORTIFIED(__openat_2)
OPENAT_FORTIFIED(__openat64_2)

#define CREAT(name)                                                                    \
  NEXT(int, name, const char *, mode_t)                                                \
  EXPORT int name(const char *path, mode_t mode) {                                     \
    int flags = O_CREAT | O_WRONLY | O_TRUNC;                                          \
    REDIRECT(AT_FDCWD)                                                                 \
    return next_##name()(use, mode);                                                   \
  }
CREAT(creat)
CREAT(creat64)

/* A stream has no use for a node's words. */
#define FOPEN(name, parameters, arguments, ...)                                        \
  NEXT(FILE *, name, __VA_ARGS__)                                                      \
  EXPORT FILE *name parameters {                                                       \
    char buffer[PATH_MAX];                                                             \
    const char *use = shim_redirect(AT_FDCWD, path, buffer, NULL);                     \
    shim_note_open(use);                                                               \
    return next_##name() arguments;                                                    \
  }
FOPEN(fopen, (const char *path, const char *mode), (use, mode), const char *, const char *)
FOPEN(fopen64, (const char *path, const char *mode), (use, mode), const char *, const char *)
FOPEN(freopen, (const char *path, const char *mode, FILE *stream), (use, mode, stream), const char *, const char *, FILE *)
FOPEN(freopen64, (const char *path, const char *mode, FILE *stream), (use, mode, stream), const char *, const char *, FILE *)

/* --- open nodes -------------------------------------------------------------------------------------------------- */

/* Which map a page-granular offset names is the kernel's convention; here every map is a file. */
static void *map_node(int number, void *address, size_t bytes, int protection, int flags, off_t offset) {
  char path[PATH_MAX];
  int length = snprintf(path, sizeof path, "%s" UIO "%d.map%ld", shim_root, number, (long)(offset / shim_page_bytes));
  if (offset < 0 || offset % shim_page_bytes != 0 || length >= (int)sizeof path) {
    errno = EINVAL;
    return MAP_FAILED;
  }
  int file = (int)shim_syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
  if (file < 0) {
    shim_complain("cannot map", path, strerror(errno));
    return MAP_FAILED;
  }
  void *mapped = (void *)shim_syscall(SYS_mmap, address, bytes, protection, flags, file, 0);
  int saved = errno;
  close(file);
  errno = saved;
  return mapped;
}

/* The host maps memory of a program only if the file cannot shrink under it; else it copies. So memory files of programs
 * that did not ask for sealing, and thus have no say in it, are sealed when they are mapped: none that we know shrinks
 * memory which it has mapped. Not huge pages: those can go missing by holes, too. */
static ino_t files[64];
static unsigned files_made;

NEXT(int, memfd_create, const char *, unsigned)
EXPORT int memfd_create(const char *name, unsigned flags) {
  struct stat status;
  if (!shim_root_length || (flags & ~MFD_CLOEXEC) != 0) return next_memfd_create()(name, flags);
  int fd = next_memfd_create()(name, flags | MFD_ALLOW_SEALING);
  int saved = errno;
  if (fd >= 0 && fstatat(fd, "", &status, AT_EMPTY_PATH) == 0) {
    unsigned at = __atomic_fetch_add(&files_made, 1, __ATOMIC_RELAXED) % (sizeof files / sizeof *files);
    __atomic_store_n(&files[at], status.st_ino, __ATOMIC_RELAXED);
  }
  errno = saved;
  return fd;
}

static void keep_whole(int fd) {
  struct stat status;
  int saved = errno;
  if (fcntl(fd, F_GET_SEALS) == 0 && fstatat(fd, "", &status, AT_EMPTY_PATH) == 0) {
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
      if (__atomic_load_n(&files[i], __ATOMIC_RELAXED) == status.st_ino) fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL);
    }
  }
  errno = saved;
}

/* Straight to the kernel: allocators call mmap before anything can be looked up. */
static void *map_any(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
  if (shim_root_length && fd >= 0 && !(flags & MAP_ANONYMOUS)) {
    int number = uio_of(fd);
    if (number >= 0) return map_node(number, address, bytes, protection, flags, offset);
    if (flags & MAP_SHARED) keep_whole(fd);
  }
  return (void *)shim_syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
}

EXPORT void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
  return map_any(address, bytes, protection, flags, fd, offset);
}

EXPORT void *mmap64(void *address, size_t bytes, int protection, int flags, int fd, off64_t offset) {
  return map_any(address, bytes, protection, flags, fd, offset);
}

/* A word read is the newest count, as the kernel has only one; a host that is gone is EIO, and no SIGPIPE. */
static ssize_t read_node(int fd, void *to) {
  ssize_t got = recv(fd, to, 4, MSG_WAITALL);
  unsigned char next[4];
  while (got == 4 && recv(fd, next, sizeof next, MSG_DONTWAIT | MSG_PEEK) == 4) got = recv(fd, to, 4, MSG_DONTWAIT);
  if (got == 0 || (got < 0 && errno == ECONNRESET)) {
    errno = EIO;
    return -1;
  }
  return got;
}

NEXT(ssize_t, read, int, void *, size_t)
EXPORT ssize_t read(int fd, void *to, size_t bytes) {
  if (bytes == 4 && uio_of(fd) >= 0) return read_node(fd, to);
  ssize_t got = next_read()(fd, to, bytes);
  shim_fix_entries(fd, to, got, -1);
  return got;
}

NEXT(ssize_t, __read_chk, int, void *, size_t, size_t)
EXPORT ssize_t __read_chk(int fd, void *to, size_t bytes, size_t room) {
  if (bytes == 4 && room >= 4 && uio_of(fd) >= 0) return read_node(fd, to);
  ssize_t got = next___read_chk()(fd, to, bytes, room);
  shim_fix_entries(fd, to, got, -1);
  return got;
}

NEXT(ssize_t, write, int, const void *, size_t)
EXPORT ssize_t write(int fd, const void *from, size_t bytes) {
  if (bytes != 4 || uio_of(fd) < 0) return next_write()(fd, from, bytes);
  ssize_t sent = send(fd, from, bytes, MSG_NOSIGNAL);
  if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) errno = EIO;
  return sent;
}

/* Memory is locked to keep its physical addresses, which are virtual here and cannot change. So where a user may lock no
 * more it is enough to bring the pages into memory. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
NEXT(int, mlock, const void *, size_t)
EXPORT int mlock(const void *address, size_t bytes) {
  int result = next_mlock()(address, bytes);
  if (result == 0 || !shim_root_length || (errno != ENOMEM && errno != EPERM)) return result;
  int saved = errno;
  size_t before = (size_t)address % (size_t)shim_page_bytes;
  if (madvise((char *)address - before, bytes + before, MADV_POPULATE_WRITE) == 0) return 0;
  errno = saved;
  return -1;
}
