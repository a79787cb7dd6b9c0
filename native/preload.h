/* What the parts of the preload shim share. preload.c: nodes and their descriptors; paths.c: which paths lead to the
 * machine directory, and the calls that take one; pagemap.c: physical addresses; calls.c: syscall(2) by its number. */
#ifndef NETVSC_PRELOAD_H
#define NETVSC_PRELOAD_H
#define _GNU_SOURCE
/* The variants for 64-bit offsets are wanted as functions of their own, and no fortified macros here. */
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* Of the program's environment as it started; nothing is changed for the program while the length is 0. */
extern char shim_root[PATH_MAX];
extern size_t shim_root_length;
extern long shim_page_bytes;

/* One line on standard error. errno is kept. */
void shim_complain(const char *what, const char *path, const char *why);

/* The function that ours stands before; ends the program where there is none. */
void *shim_next(const char *name);

/* next_NAME() is the function that our NAME stands before. Found at the first call, which may come before our constructor. */
#define NEXT(result, name, ...)                                                        \
  typedef result (*name##_function)(__VA_ARGS__);                                      \
  static name##_function next_##name(void) {                                           \
    static name##_function found;                                                      \
    name##_function next = __atomic_load_n(&found, __ATOMIC_ACQUIRE);                  \
    if (!next) {                                                                       \
      next = (name##_function)shim_next(#name);                                        \
      __atomic_store_n(&found, next, __ATOMIC_RELEASE);                                \
    }                                                                                  \
    return next;                                                                       \
  }

/* paths.c: the path to use instead of `path`, relative to the directory `at`: itself, or another one in `buffer` (of
 * PATH_MAX bytes). `*node`, if asked for, is the number of the uio node that it is, or -1. */
const char *shim_redirect(int at, const char *path, char *buffer, int *node);
/* Number of the uio node that a path without the root is, or -1. */
int shim_uio_number(const char *path);

/* preload.c: open(2) of a uio node, whose place in the machine directory is `use`. */
int shim_open_node(int number, const char *use, int flags);

/* pagemap.c: a path that is about to be opened. */
void shim_note_open(const char *path);
/* pagemap.c: descriptors that an earlier program left open. */
void shim_note_inherited(void);
/* pagemap.c: puts virtual page numbers into `got` bytes just read from offset `from`, or with `from` -1 from where the
 * descriptor's position was. Does nothing for all other files. errno is kept. */
void shim_fix_entries(int fd, void *bytes, ssize_t got, off_t from);

/* syscall(2), which ours stands before where we can do without it. */
#if defined(__x86_64__) || defined(__aarch64__)
#define SHIM_OWN_SYSCALLS 1
long shim_syscall6(long number, long a, long b, long c, long d, long e, long f);
#define shim_syscall(...) SHIM_PICK(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)
#define SHIM_PICK(number, a, b, c, d, e, f, ...) \
  shim_syscall6(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#else
#define shim_syscall syscall
#endif
#endif
