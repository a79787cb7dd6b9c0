/* syscall(2) by number, which libuv, Rust's library and others use for calls that some libc does not have: the same as the
 * calls by name. */
#include "preload.h"
#ifdef SHIM_OWN_SYSCALLS
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>

static long open_how(int at, const char *path, const struct open_how *how, size_t bytes) {
  char buffer[PATH_MAX];
  int node;
  const char *use = shim_redirect(at, path, buffer, &node);
  if (node >= 0 && how && bytes >= sizeof *how && !(how->flags & O_PATH))
    return shim_open_node(node, use, (int)how->flags);
  shim_note_open(use);
  return shim_syscall(SYS_openat2, at, use, how, bytes, 0, 0);
}

/* Calls that take a path as their second argument, behind the directory that it starts from. */
static long at_path(long number, const long *a) {
  char buffer[PATH_MAX];
  const char *use = shim_redirect((int)a[0], (const char *)a[1], buffer, NULL);
  return shim_syscall6(number, a[0], (long)use, a[2], a[3], a[4], a[5]);
}

EXPORT long syscall(long number, ...) {
  long a[6];
  va_list list;
  va_start(list, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
  va_end(list);
  if (!shim_root_length) return shim_syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  switch (number) {
    case SYS_openat: return openat((int)a[0], (const char *)a[1], (int)a[2], (mode_t)a[3]);
#ifdef SYS_open
    case SYS_open: return open((const char *)a[0], (int)a[1], (mode_t)a[2]);
    case SYS_stat: return stat((const char *)a[0], (struct stat *)a[1]);
    case SYS_lstat: return lstat((const char *)a[0], (struct stat *)a[1]);
    case SYS_access: return access((const char *)a[0], (int)a[1]);
    case SYS_readlink: return readlink((const char *)a[0], (char *)a[1], (size_t)a[2]);
#endif
    case SYS_openat2: return open_how((int)a[0], (const char *)a[1], (const struct open_how *)a[2], (size_t)a[3]);
    case SYS_statx:
    case SYS_newfstatat:
    case SYS_readlinkat:
    case SYS_faccessat:
    case SYS_faccessat2:
    case SYS_name_to_handle_at: return at_path(number, a);
    case SYS_read: return read((int)a[0], (void *)a[1], (size_t)a[2]);
    case SYS_write: return write((int)a[0], (const void *)a[1], (size_t)a[2]);
    case SYS_pread64: return pread((int)a[0], (void *)a[1], (size_t)a[2], (off_t)a[3]);
    case SYS_mmap: return (long)mmap((void *)a[0], (size_t)a[1], (int)a[2], (int)a[3], (int)a[4], (off_t)a[5]);
    case SYS_memfd_create: return memfd_create((const char *)a[0], (unsigned)a[1]);
    default: return shim_syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  }
}
#endif
