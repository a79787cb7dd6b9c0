/* Which paths lead to the machine directory, and every call that takes one (those that open are in preload.c). */
#include "preload.h"
#include <dirent.h>
#include <ftw.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#define VMBUS "/sys/bus/vmbus"
#define DEV "/dev"
#define UIO "uio"
#define UIO_DIGITS_MAX 5

/* Paths that are looked up below the root, too. There is nothing: the guest's kernel neither compacts locked memory nor
 * moves it between NUMA nodes, as its physical addresses are virtual ones. */
static const char *const absent[] = {"/proc/sys/vm/compact_unevictable_allowed", "/proc/sys/kernel/numa_balancing"};

int shim_uio_number(const char *path) {
  size_t length = sizeof DEV "/" UIO - 1;
  if (strncmp(path, DEV "/" UIO, length) != 0 || !path[length]) return -1;
  const char *digits = path + length;
  int number = 0;
  for (const char *p = digits; *p; p++) {
    if (*p < '0' || *p > '9' || p - digits >= UIO_DIGITS_MAX) return -1;
    number = number * 10 + (*p - '0');
  }
  return number;
}

/* Of a path without "." and "..". */
static int is_ours(const char *path) {
  size_t length = sizeof VMBUS - 1;
  if (strncmp(path, VMBUS, length) == 0) return path[length] == 0 || path[length] == '/';
  for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
    if (strcmp(path, absent[i]) == 0) return 1;
  return shim_uio_number(path) >= 0;
}

/* Whether a path could become one of ours, for all but a few a quick no. */
static int concerns(const char *path) {
  if (strstr(path, "vmbus") || strstr(path, UIO)) return 1;
  for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
    if (strstr(path, strrchr(absent[i], '/') + 1)) return 1;
  return 0;
}

/* Walks a path as text, behind the root that `buffer` begins with. Outside of the bus ".." takes the last name away: on the
 * way to /sys/bus and /dev there are no symbolic links. Inside there are, so all but leaving is left to the kernel. NULL:
 * too long. */
static char *walk(const char *path, char *buffer, int *left) {
  char *base = buffer + shim_root_length;
  size_t room = PATH_MAX - shim_root_length, length = 0, inside = 0, depth = 0;
  *left = 0;
  for (const char *name = path; *name;) {
    size_t bytes = strcspn(name, "/");
    int up = bytes == 2 && name[0] == '.' && name[1] == '.';
    if (bytes == 0 || (bytes == 1 && name[0] == '.')) {
      /* nothing */
    } else if (up && inside && depth == 0) {
      inside = 0;
      *left = 1;
      length = sizeof "/sys/bus" - 1;
    } else if (up && !inside) {
      while (length > 0 && base[--length] != '/') continue;
    } else {
      if (length + 1 + bytes + 2 > room) return NULL;
      base[length] = '/';
      memcpy(base + length + 1, name, bytes);
      length += 1 + bytes;
      if (inside) depth += up ? (size_t)-1 : 1;
      else inside = length == sizeof VMBUS - 1 && memcmp(base, VMBUS, length) == 0;
    }
    name += bytes;
    name += *name == '/';
  }
  size_t given = strlen(path);
  if (given > 0 && path[given - 1] == '/') base[length++] = '/';
  base[length] = 0;
  return base;
}

/* Path of what a descriptor or the present directory is, without the root. 0: there is none. */
static size_t path_of(int at, char *to, size_t room) {
  char link[64];
  if (at == AT_FDCWD) strcpy(link, "/proc/self/cwd");
  else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
  ssize_t length = shim_syscall(SYS_readlinkat, AT_FDCWD, link, to, room - 1, 0, 0);
  if (length <= 0 || to[0] != '/') return 0;
  to[length] = 0;
  if (strncmp(to, shim_root, shim_root_length) != 0 || to[shim_root_length] != '/') return (size_t)length;
  memmove(to, to + shim_root_length, (size_t)length - shim_root_length + 1);
  return (size_t)length - shim_root_length;
}

/* Apart, for its stack. */
__attribute__((noinline)) static const char *from_directory(int at, const char *path, char *buffer, int *left) {
  char joined[PATH_MAX];
  int saved = errno;
  size_t length = path_of(at, joined, sizeof joined);
  errno = saved;
  if (length == 0 || length + 1 + strlen(path) >= sizeof joined) return NULL;
  joined[length] = '/';
  strcpy(joined + length + 1, path);
  return walk(joined, buffer, left);
}

/* Not inlined: the compiler believes that callers' paths are not NULL, the kernel says EFAULT. */
__attribute__((noinline)) const char *shim_redirect(int at, const char *path, char *buffer, int *node) {
  if (node) *node = -1;
  if (!shim_root_length || !path || !concerns(path)) return path;
  int left = 0;
  const char *walked = path[0] == '/' ? walk(path, buffer, &left) : from_directory(at, path, buffer, &left);
  if (!walked) return path;
  if (!is_ours(walked)) return left ? walked : path;
  if (node) *node = shim_uio_number(walked);
  memcpy(buffer, shim_root, shim_root_length);
  return buffer;
}

/* A resolved path is one that the program can use again: without the root. */
static char *without_root(char *resolved) {
  if (resolved && shim_root_length && strncmp(resolved, shim_root, shim_root_length) == 0 &&
      is_ours(resolved + shim_root_length))
    memmove(resolved, resolved + shim_root_length, strlen(resolved) - shim_root_length + 1);
  return resolved;
}

/* --- calls that take a path, and perhaps the directory that it starts from ------------------------------------------ */

/* Parameters with names, what to pass on (`use` for the path), parameter types. */
#define AT(result, name, parameters, arguments, ...)                                   \
  NEXT(result, name, __VA_ARGS__)                                                      \
  EXPORT result name parameters {                                                      \
    char buffer[PATH_MAX];                                                             \
    const char *use = shim_redirect(at, path, buffer, NULL);                           \
    return next_##name() arguments;                                                    \
  }
#define PATH(result, name, parameters, arguments, ...)                                 \
  NEXT(result, name, __VA_ARGS__)                                                      \
  EXPORT result name parameters {                                                      \
    char buffer[PATH_MAX];                                                             \
    const char *use = shim_redirect(AT_FDCWD, path, buffer, NULL);                     \
    return next_##name() arguments;                                                    \
  }

PATH(DIR *, opendir, (const char *path), (use), const char *)
PATH(int, chdir, (const char *path), (use), const char *)
PATH(int, access, (const char *path, int mode), (use, mode), const char *, int)
PATH(int, euidaccess, (const char *path, int mode), (use, mode), const char *, int)
PATH(int, eaccess, (const char *path, int mode), (use, mode), const char *, int)
AT(int, faccessat, (int at, const char *path, int mode, int flags), (at, use, mode, flags), int, const char *, int, int)
PATH(ssize_t, readlink, (const char *path, char *to, size_t bytes), (use, to, bytes), const char *, char *, size_t)
AT(ssize_t, readlinkat, (int at, const char *path, char *to, size_t bytes), (at, use, to, bytes), int, const char *, char *, size_t)
PATH(ssize_t, __readlink_chk, (const char *path, char *to, size_t bytes, size_t room), (use, to, bytes, room), const char *, char *, size_t, size_t)
AT(ssize_t, __readlinkat_chk, (int at, const char *path, char *to, size_t bytes, size_t room), (at, use, to, bytes, room), int, const char *, char *, size_t, size_t)

PATH(int, stat, (const char *path, struct stat *to), (use, to), const char *, struct stat *)
PATH(int, stat64, (const char *path, struct stat64 *to), (use, to), const char *, struct stat64 *)
PATH(int, lstat, (const char *path, struct stat *to), (use, to), const char *, struct stat *)
PATH(int, lstat64, (const char *path, struct stat64 *to), (use, to), const char *, struct stat64 *)
AT(int, fstatat, (int at, const char *path, struct stat *to, int flags), (at, use, to, flags), int, const char *, struct stat *, int)
AT(int, fstatat64, (int at, const char *path, struct stat64 *to, int flags), (at, use, to, flags), int, const char *, struct stat64 *, int)
AT(int, statx, (int at, const char *path, int flags, unsigned mask, struct statx *to), (at, use, flags, mask, to), int, const char *, int, unsigned, struct statx *)
/* What stat was before glibc 2.33. */
PATH(int, __xstat, (int version, const char *path, struct stat *to), (version, use, to), int, const char *, struct stat *)
PATH(int, __xstat64, (int version, const char *path, struct stat64 *to), (version, use, to), int, const char *, struct stat64 *)
PATH(int, __lxstat, (int version, const char *path, struct stat *to), (version, use, to), int, const char *, struct stat *)
PATH(int, __lxstat64, (int version, const char *path, struct stat64 *to), (version, use, to), int, const char *, struct stat64 *)
AT(int, __fxstatat, (int version, int at, const char *path, struct stat *to, int flags), (version, at, use, to, flags), int, int, const char *, struct stat *, int)
AT(int, __fxstatat64, (int version, int at, const char *path, struct stat64 *to, int flags), (version, at, use, to, flags), int, int, const char *, struct stat64 *, int)

PATH(int, statfs, (const char *path, struct statfs *to), (use, to), const char *, struct statfs *)
PATH(int, statfs64, (const char *path, struct statfs64 *to), (use, to), const char *, struct statfs64 *)
PATH(int, statvfs, (const char *path, struct statvfs *to), (use, to), const char *, struct statvfs *)
PATH(int, statvfs64, (const char *path, struct statvfs64 *to), (use, to), const char *, struct statvfs64 *)
PATH(long, pathconf, (const char *path, int name), (use, name), const char *, int)
/* ls -l asks for these. */
PATH(ssize_t, getxattr, (const char *path, const char *name, void *to, size_t bytes), (use, name, to, bytes), const char *, const char *, void *, size_t)
PATH(ssize_t, lgetxattr, (const char *path, const char *name, void *to, size_t bytes), (use, name, to, bytes), const char *, const char *, void *, size_t)
PATH(ssize_t, listxattr, (const char *path, char *to, size_t bytes), (use, to, bytes), const char *, char *, size_t)
PATH(ssize_t, llistxattr, (const char *path, char *to, size_t bytes), (use, to, bytes), const char *, char *, size_t)
PATH(int, inotify_add_watch, (int fd, const char *path, uint32_t mask), (fd, use, mask), int, const char *, uint32_t)
AT(int, name_to_handle_at, (int at, const char *path, struct file_handle *handle, int *mount, int flags), (at, use, handle, mount, flags), int, const char *, struct file_handle *, int *, int)

typedef int (*filter)(const struct dirent *);
typedef int (*order)(const struct dirent **, const struct dirent **);
typedef int (*filter64)(const struct dirent64 *);
typedef int (*order64)(const struct dirent64 **, const struct dirent64 **);
PATH(int, scandir, (const char *path, struct dirent ***list, filter keep, order compare), (use, list, keep, compare), const char *, struct dirent ***, filter, order)
PATH(int, scandir64, (const char *path, struct dirent64 ***list, filter64 keep, order64 compare), (use, list, keep, compare), const char *, struct dirent64 ***, filter64, order64)
AT(int, scandirat, (int at, const char *path, struct dirent ***list, filter keep, order compare), (at, use, list, keep, compare), int, const char *, struct dirent ***, filter, order)
AT(int, scandirat64, (int at, const char *path, struct dirent64 ***list, filter64 keep, order64 compare), (at, use, list, keep, compare), int, const char *, struct dirent64 ***, filter64, order64)

/* --- calls that give paths back -------------------------------------------------------------------------------------- */

#define RESOLVE(name, parameters, arguments, ...)                                      \
  NEXT(char *, name, __VA_ARGS__)                                                      \
  EXPORT char *name parameters {                                                       \
    char buffer[PATH_MAX];                                                             \
    const char *use = shim_redirect(AT_FDCWD, path, buffer, NULL);                     \
    return without_root(next_##name() arguments);                                      \
  }
RESOLVE(realpath, (const char *path, char *to), (use, to), const char *, char *)
RESOLVE(__realpath_chk, (const char *path, char *to, size_t room), (use, to, room), const char *, char *, size_t)
RESOLVE(canonicalize_file_name, (const char *path), (use), const char *)

/* Buffers that have no room for the root are too small for a moment only. */
NEXT(char *, getcwd, char *, size_t)
EXPORT char *getcwd(char *to, size_t bytes) {
  char whole[PATH_MAX];
  if (!shim_root_length || !to || bytes >= sizeof whole) return without_root(next_getcwd()(to, bytes));
  if (!without_root(next_getcwd()(whole, sizeof whole))) return NULL;
  size_t length = strlen(whole) + 1;
  if (length > bytes) {
    errno = bytes == 0 ? EINVAL : ERANGE;
    return NULL;
  }
  return memcpy(to, whole, length);
}

EXPORT char *__getcwd_chk(char *to, size_t bytes, size_t room) {
  if (bytes > room) abort();
  return getcwd(to, bytes);
}

/* Trusts $PWD, which may name the same directory by a path of ours, and needs no more from us then. */
NEXT(char *, get_current_dir_name, void)
EXPORT char *get_current_dir_name(void) { return without_root(next_get_current_dir_name()()); }

/* The root with every character escaped that a pattern knows, then the rest of `use`. */
static const char *as_pattern(const char *use, char *to, int flags) {
  size_t length = 0;
  for (size_t i = 0; i < shim_root_length; i++) {
    if (length + 2 >= PATH_MAX) return use;
    if (!(flags & GLOB_NOESCAPE) && strchr("*?[]{}\\~", shim_root[i])) to[length++] = '\\';
    to[length++] = shim_root[i];
  }
  if (length + strlen(use + shim_root_length) >= PATH_MAX) return use;
  strcpy(to + length, use + shim_root_length);
  return to;
}

/* With GLOB_NOCHECK a pattern that matches nothing is itself the answer. */
#define GLOB(name, list)                                                               \
  NEXT(int, name, const char *, int, int (*)(const char *, int), list *)               \
  EXPORT int name(const char *path, int flags, int (*failed)(const char *, int), list *found) { \
    char buffer[PATH_MAX], escaped[PATH_MAX];                                          \
    const char *use = shim_redirect(AT_FDCWD, path, buffer, NULL);                     \
    if (use != buffer) return next_##name()(use, flags, failed, found);                \
    use = as_pattern(use, escaped, flags);                                             \
    int result = next_##name()(use, flags, failed, found);                             \
    size_t offset = (flags & GLOB_DOOFFS) ? found->gl_offs : 0;                        \
    for (size_t i = 0; result == 0 && i < found->gl_pathc; i++) {                      \
      char **entry = &found->gl_pathv[offset + i];                                     \
      char *same = strcmp(*entry, use) == 0 ? strdup(path) : NULL;                     \
      if (!same) without_root(*entry);                                                 \
      else {                                                                           \
        free(*entry);                                                                  \
        *entry = same;                                                                 \
      }                                                                                \
    }                                                                                  \
    return result;                                                                     \
  }
GLOB(glob, glob_t)
GLOB(glob64, glob64_t)

/* Tree walks show the visitor paths without the root. */
#define WALK_VISIT(name, status)                                                       \
  typedef int (*name##_visit)(const char *, const struct status *, int, struct FTW *); \
  static __thread name##_visit name##_visitor;                                         \
  static int name##_show(const char *path, const struct status *about, int type, struct FTW *where) { \
    struct FTW shown = *where;                                                         \
    shown.base -= (int)shim_root_length;                                               \
    return name##_visitor(path + shim_root_length, about, type, &shown);               \
  }
#define WALK_VISIT_SHORT(name, status)                                                 \
  typedef int (*name##_visit)(const char *, const struct status *, int);               \
  static __thread name##_visit name##_visitor;                                         \
  static int name##_show(const char *path, const struct status *about, int type) {     \
    return name##_visitor(path + shim_root_length, about, type);                       \
  }
#define WALK(name, parameters, others, ...)                                            \
  NEXT(int, name, const char *, name##_visit, __VA_ARGS__)                             \
  EXPORT int name parameters {                                                         \
    char buffer[PATH_MAX];                                                             \
    const char *use = shim_redirect(AT_FDCWD, path, buffer, NULL);                     \
    name##_visit outer = name##_visitor;                                               \
    if (use != buffer) return next_##name() (use, visit, others);                      \
    name##_visitor = visit;                                                            \
    int result = next_##name() (use, name##_show, others);                             \
    name##_visitor = outer;                                                            \
    return result;                                                                     \
  }
#define COMMA ,
WALK_VISIT(nftw, stat)
WALK(nftw, (const char *path, nftw_visit visit, int descriptors, int flags), descriptors COMMA flags, int, int)
WALK_VISIT(nftw64, stat64)
WALK(nftw64, (const char *path, nftw64_visit visit, int descriptors, int flags), descriptors COMMA flags, int, int)
WALK_VISIT_SHORT(ftw, stat)
WALK(ftw, (const char *path, ftw_visit visit, int descriptors), descriptors, int)
WALK_VISIT_SHORT(ftw64, stat64)
WALK(ftw64, (const char *path, ftw64_visit visit, int descriptors), descriptors, int)
