/* Shows a program the devices of a machine directory where a kernel would show its own: /sys/bus/vmbus and /dev/uioN are
 * looked up below $NETVSC_ROOT. `netvsc run` builds and preloads it.
 *
 * An open uio node is a connected Unix socket: poll, read (interrupt count) and write (interrupt control) work on it as on
 * a uio_hv_generic node, mmap is turned to the file of the map that the offset names. Which descriptors are such sockets is
 * asked of the kernel each time, so close, dup, fork and exec need no bookkeeping. */
#define _GNU_SOURCE
/* The variants for 64-bit offsets are wanted as functions of their own, and no fortified macros here. */
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define VMBUS "/sys/bus/vmbus"
#define UIO "/dev/uio"
/* A host that is alive answers within its tick. */
#define OPEN_TIMEOUT_MS 10000
/* Where to look for a descriptor that already has the node open. */
#define DESCRIPTORS_MAX 4096
#define LINE_MAX_BYTES 4400

/* Of the program's environment as it started; nothing is redirected while it is empty. */
static char root[PATH_MAX];
static size_t root_length;
static long page_bytes = 4096;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

/* One line on standard error, without stdio, which allocates. errno is kept. */
static void complain(const char *what, const char *path, const char *why) {
  char line[LINE_MAX_BYTES];
  int saved = errno;
  int length = snprintf(line, sizeof line, "netvsc run: %s %s: %s\n", what, path, why);
  if (length >= (int)sizeof line) length = sizeof line - 1;
  if (length > 0 && syscall(SYS_write, 2, line, (size_t)length) < 0) errno = saved;
  errno = saved;
}

__attribute__((constructor)) static void begin(void) {
  const char *given = getenv("NETVSC_ROOT");
  page_bytes = sysconf(_SC_PAGESIZE);
  if (!given || !*given) return;
  size_t length = strlen(given);
  if (given[0] != '/' || length >= sizeof root) {
    complain("NETVSC_ROOT", given, "expected an absolute path");
    return;
  }
  memcpy(root, given, length + 1);
  root_length = length;
}

/* The function that this one stands before. Found at the first call, which may come before our constructor. */
#define NEXT(result, name, ...)                                        \
  typedef result (*name##_function)(__VA_ARGS__);                      \
  static name##_function next_##name(void) {                           \
    static name##_function found;                                      \
    name##_function next = __atomic_load_n(&found, __ATOMIC_ACQUIRE);  \
    if (!next) {                                                       \
      next = (name##_function)dlsym(RTLD_NEXT, #name);                 \
      if (!next) {                                                     \
        complain("libc has no", #name, "cannot go on");                \
        _exit(127);                                                    \
      }                                                                \
      __atomic_store_n(&found, next, __ATOMIC_RELEASE);                \
    }                                                                  \
    return next;                                                       \
  }

/* --- paths ------------------------------------------------------------------------------------------------------- */

/* Number of a uio node's path, or -1. */
static int uio_number(const char *path) {
  if (strncmp(path, UIO, sizeof UIO - 1) != 0) return -1;
  const char *digits = path + sizeof UIO - 1;
  int number = 0;
  if (!*digits) return -1;
  for (const char *p = digits; *p; p++) {
    if (*p < '0' || *p > '9' || p - digits > 4) return -1;
    number = number * 10 + (*p - '0');
  }
  return number;
}

/* Not inlined: the compiler believes that callers' paths are not NULL, the kernel says EFAULT. */
__attribute__((noinline)) static int is_ours(const char *path) {
  size_t length = sizeof VMBUS - 1;
  if (!root_length || !path || path[0] != '/') return 0;
  if (strncmp(path, VMBUS, length) == 0) return path[length] == 0 || path[length] == '/';
  return strncmp(path, UIO, sizeof UIO - 1) == 0 && path[sizeof UIO - 1] >= '0' && path[sizeof UIO - 1] <= '9';
}

/* The path to use: `path` itself, or its place below the root, in `buffer` (nowhere when that is too long). */
static const char *redirect(const char *path, char *buffer) {
  if (!is_ours(path)) return path;
  size_t length = strlen(path);
  if (root_length + length >= PATH_MAX) return "";
  memcpy(buffer, root, root_length);
  memcpy(buffer + root_length, path, length + 1);
  return buffer;
}

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
  if (!root_length || fd < 0) return -1;
  memset(&peer, 0, sizeof peer);
  if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && peer.sun_family == AF_UNIX) {
    char path[sizeof peer.sun_path + 1], ours[PATH_MAX];
    memcpy(path, peer.sun_path, sizeof peer.sun_path);
    path[sizeof peer.sun_path] = 0;
    const char *tail = strrchr(path, '/');
    if (tail && tail - path >= 4 && (number = uio_number(tail - 4)) >= 0) {
      const char *node = redirect(tail - 4, ours);
      if (strcmp(path, node) != 0 && !same_file(path, node)) number = -1;
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
    directory = (int)syscall(SYS_openat, AT_FDCWD, folder, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (directory < 0) return errno;
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%.32s", directory, name);
  }
  while (connect(fd, (struct sockaddr *)&address, sizeof address) != 0 && error == 0) {
    if (errno != EINTR) error = errno;
  }
  if (directory >= 0) close(directory);
  return error;
}

static int open_node(const char *path, const char *node, int flags) {
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
    complain("cannot open", path, why);
    return -1;
  }
  /* Where only ancestors may read a process's memory (Yama), the host may, too. */
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &host, &length) == 0) prctl(PR_SET_PTRACER, (unsigned long)host.pid, 0, 0, 0);
  if (flags & O_NONBLOCK) fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

/* As a kernel, opens the channel at the first open and shares it with the later ones; the last close ends it. */
static int open_uio(const char *path, const char *node, int flags) {
  static int last = -1;
  int number = uio_number(path), fd = -1, state;
  /* Not to be cancelled while it holds the lock. */
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  pthread_mutex_lock(&opening);
  int shared = uio_of(last) == number ? last : -1;
  for (int i = 0; shared < 0 && i < DESCRIPTORS_MAX; i++) {
    if (uio_of(i) == number) shared = i;
  }
  if (shared >= 0) fd = fcntl(shared, (flags & O_CLOEXEC) ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
  else fd = open_node(path, node, flags);
  if (fd >= 0 && shared < 0) last = fd;
  pthread_mutex_unlock(&opening);
  pthread_setcancelstate(state, NULL);
  return fd;
}

/* --- open -------------------------------------------------------------------------------------------------------- */

/* A mode follows the flags only when a file may be made. */
#define MODE(flags)                                  \
  mode_t mode = 0;                                   \
  if ((flags) & (O_CREAT | O_TMPFILE)) {             \
    va_list list;                                    \
    va_start(list, flags);                           \
    mode = (mode_t)va_arg(list, unsigned);           \
    va_end(list);                                    \
  }

#define OPEN(name)                                                     \
  NEXT(int, name, const char *, int, ...)                              \
  EXPORT int name(const char *path, int flags, ...) {                  \
    char buffer[PATH_MAX];                                             \
    MODE(flags)                                                        \
    const char *use = redirect(path, buffer);                          \
    if (use != path && uio_number(path) >= 0) return open_uio(path, use, flags); \
    return next_##name()(use, flags, mode); \
  }
OPEN(open)
OPEN(open64)

#define OPEN_FORTIFIED(name)                                           \
  NEXT(int, name, const char *, int)                                   \
  EXPORT int name(const char *path, int flags) {                       \
    char buffer[PATH_MAX];                                             \
    const char *use = redirect(path, buffer);                          \
    if (use != path && uio_number(path) >= 0) return open_uio(path, use, flags); \
    return next_##name()(use, flags); \
  }
OPEN_FORTIFIED(__open_2)
OPEN_FORTIFIED(__open64_2)

#define OPENAT(name)                                                   \
  NEXT(int, name, int, const char *, int, ...)                         \
  EXPORT int name(int at, const char *path, int flags, ...) {          \
    char buffer[PATH_MAX];                                             \
    MODE(flags)                                                        \
    const char *use = redirect(path, buffer);                          \
    if (use != path && uio_number(path) >= 0) return open_uio(path, use, flags); \
    return next_##name()(at, use, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)

#define OPENAT_FORTIFIED(name)                                         \
  NEXT(int, name, int, const char *, int)                              \
  EXPORT int name(int at, const char *path, int flags) {               \
    char buffer[PATH_MAX];                                             \
    const char *use = redirect(path, buffer);                          \
    if (use != path && uio_number(path) >= 0) return open_uio(path, use, flags); \
    return next_##name()(at, use, flags); \
  }
OPENAT_FORTIFIED(__openat_2)
OPENAT_FORTIFIED(__openat64_2)

/* --- everything else that takes a path ----------------------------------------------------------------------------- */

/* Parameters with names, what to pass on (`use` for the path), parameter types. */
#define PATH(result, name, parameters, arguments, ...)         \
  NEXT(result, name, __VA_ARGS__)                                      \
  EXPORT result name parameters {                                      \
    char buffer[PATH_MAX];                                             \
    const char *use = redirect(path, buffer);                          \
    return next_##name() arguments;                                    \
  }

PATH(FILE *, fopen, (const char *path, const char *mode), (use, mode), const char *, const char *)
PATH(FILE *, fopen64, (const char *path, const char *mode), (use, mode), const char *, const char *)
PATH(DIR *, opendir, (const char *path), (use), const char *)
PATH(int, access, (const char *path, int mode), (use, mode), const char *, int)
PATH(int, euidaccess, (const char *path, int mode), (use, mode), const char *, int)
PATH(int, eaccess, (const char *path, int mode), (use, mode), const char *, int)
PATH(int, faccessat, (int at, const char *path, int mode, int flags), (at, use, mode, flags), int, const char *, int, int)
PATH(ssize_t, readlink, (const char *path, char *to, size_t bytes), (use, to, bytes), const char *, char *, size_t)
PATH(ssize_t, readlinkat, (int at, const char *path, char *to, size_t bytes), (at, use, to, bytes), int, const char *, char *, size_t)
PATH(ssize_t, __readlink_chk, (const char *path, char *to, size_t bytes, size_t room), (use, to, bytes, room), const char *, char *, size_t, size_t)
PATH(ssize_t, __readlinkat_chk, (int at, const char *path, char *to, size_t bytes, size_t room), (at, use, to, bytes, room), int, const char *, char *, size_t, size_t)

typedef int (*filter)(const struct dirent *);
typedef int (*order)(const struct dirent **, const struct dirent **);
typedef int (*filter64)(const struct dirent64 *);
typedef int (*order64)(const struct dirent64 **, const struct dirent64 **);
PATH(int, scandir, (const char *path, struct dirent ***list, filter keep, order compare), (use, list, keep, compare), const char *, struct dirent ***, filter, order)
PATH(int, scandir64, (const char *path, struct dirent64 ***list, filter64 keep, order64 compare), (use, list, keep, compare), const char *, struct dirent64 ***, filter64, order64)

PATH(int, stat, (const char *path, struct stat *to), (use, to), const char *, struct stat *)
PATH(int, stat64, (const char *path, struct stat64 *to), (use, to), const char *, struct stat64 *)
PATH(int, lstat, (const char *path, struct stat *to), (use, to), const char *, struct stat *)
PATH(int, lstat64, (const char *path, struct stat64 *to), (use, to), const char *, struct stat64 *)
PATH(int, fstatat, (int at, const char *path, struct stat *to, int flags), (at, use, to, flags), int, const char *, struct stat *, int)
PATH(int, fstatat64, (int at, const char *path, struct stat64 *to, int flags), (at, use, to, flags), int, const char *, struct stat64 *, int)
PATH(int, statx, (int at, const char *path, int flags, unsigned mask, struct statx *to), (at, use, flags, mask, to), int, const char *, int, unsigned, struct statx *)
/* What stat was before glibc 2.33. */
PATH(int, __xstat, (int version, const char *path, struct stat *to), (version, use, to), int, const char *, struct stat *)
PATH(int, __xstat64, (int version, const char *path, struct stat64 *to), (version, use, to), int, const char *, struct stat64 *)
PATH(int, __lxstat, (int version, const char *path, struct stat *to), (version, use, to), int, const char *, struct stat *)
PATH(int, __lxstat64, (int version, const char *path, struct stat64 *to), (version, use, to), int, const char *, struct stat64 *)
PATH(int, __fxstatat, (int version, int at, const char *path, struct stat *to, int flags), (version, at, use, to, flags), int, int, const char *, struct stat *, int)
PATH(int, __fxstatat64, (int version, int at, const char *path, struct stat64 *to, int flags), (version, at, use, to, flags), int, int, const char *, struct stat64 *, int)

/* A resolved path is one that the program can use again: without the root. */
static char *without_root(char *resolved) {
  if (resolved && root_length && strncmp(resolved, root, root_length) == 0 && resolved[root_length] == '/')
    memmove(resolved, resolved + root_length, strlen(resolved) - root_length + 1);
  return resolved;
}

#define RESOLVE(name, parameters, arguments, ...)                      \
  NEXT(char *, name, __VA_ARGS__)                                      \
  EXPORT char *name parameters {                                       \
    char buffer[PATH_MAX];                                             \
    const char *use = redirect(path, buffer);                          \
    char *resolved = next_##name() arguments;                          \
    return use == path ? resolved : without_root(resolved);            \
  }
RESOLVE(realpath, (const char *path, char *to), (use, to), const char *, char *)
RESOLVE(__realpath_chk, (const char *path, char *to, size_t room), (use, to, room), const char *, char *, size_t)
RESOLVE(canonicalize_file_name, (const char *path), (use), const char *)

/* --- open nodes -------------------------------------------------------------------------------------------------- */

/* Which map a page-granular offset names is the kernel's convention; here every map is a file. */
static void *map_node(int number, void *address, size_t bytes, int protection, int flags, off_t offset) {
  char path[PATH_MAX];
  int length = snprintf(path, sizeof path, "%s" UIO "%d.map%ld", root, number, (long)(offset / page_bytes));
  if (offset < 0 || offset % page_bytes != 0 || length >= (int)sizeof path) {
    errno = EINVAL;
    return MAP_FAILED;
  }
  int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
  if (file < 0) {
    complain("cannot map", path, strerror(errno));
    return MAP_FAILED;
  }
  void *mapped = (void *)syscall(SYS_mmap, address, bytes, protection, flags, file, 0L);
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
  if (!root_length || (flags & ~MFD_CLOEXEC) != 0) return next_memfd_create()(name, flags);
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
  if (root_length && fd >= 0 && !(flags & MAP_ANONYMOUS)) {
    int number = uio_of(fd);
    if (number >= 0) return map_node(number, address, bytes, protection, flags, offset);
    if (flags & MAP_SHARED) keep_whole(fd);
  }
  return (void *)syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
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
  return bytes == 4 && uio_of(fd) >= 0 ? read_node(fd, to) : next_read()(fd, to, bytes);
}

NEXT(ssize_t, __read_chk, int, void *, size_t, size_t)
EXPORT ssize_t __read_chk(int fd, void *to, size_t bytes, size_t room) {
  return bytes == 4 && room >= 4 && uio_of(fd) >= 0 ? read_node(fd, to) : next___read_chk()(fd, to, bytes, room);
}

NEXT(ssize_t, write, int, const void *, size_t)
EXPORT ssize_t write(int fd, const void *from, size_t bytes) {
  if (bytes != 4 || uio_of(fd) < 0) return next_write()(fd, from, bytes);
  ssize_t sent = send(fd, from, bytes, MSG_NOSIGNAL);
  if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) errno = EIO;
  return sent;
}
