/* Physical addresses: in /proc/PID/pagemap, as this program reads it, a page that is in memory has its virtual page number,
 * whoever asks. All else is the kernel's answer. Descriptors are not remembered: once any pagemap was opened, the kernel is
 * asked at every read whether it is of one, so dup, fork and exec take care of themselves. */
#include "preload.h"
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#define NAME "/pagemap"
#define BARE_NAME "pagemap"
#define PROC_MAGIC 0x9fa0
#define ENTRY_BYTES ((off_t)sizeof(uint64_t))
#define PRESENT (UINT64_C(1) << 63)
#define NUMBER ((UINT64_C(1) << 55) - 1)
/* Descriptors that a program inherits are low ones. */
#define INHERITED_MAX 256

static int opened;

static int ends_with_name(const char *path, size_t length) {
  return length >= sizeof NAME - 1 && memcmp(path + length - (sizeof NAME - 1), NAME, sizeof NAME - 1) == 0;
}

void shim_note_open(const char *path) {
  if (!shim_root_length || !path) return;
  size_t length = strlen(path);
  if (ends_with_name(path, length) || strcmp(path, BARE_NAME) == 0) __atomic_store_n(&opened, 1, __ATOMIC_RELAXED);
}

static int is_pagemap(int fd) {
  struct statfs about;
  char link[64], path[128];
  if (fstatfs(fd, &about) != 0 || about.f_type != PROC_MAGIC) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = shim_syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path, 0, 0);
  return length > 0 && ends_with_name(path, (size_t)length);
}

void shim_note_inherited(void) {
  int saved = errno;
  for (int fd = 0; fd < INHERITED_MAX && !opened; fd++) opened = is_pagemap(fd);
  errno = saved;
}

/* Whether what is read from a descriptor has to be looked at. errno is kept. */
static int shows_entries(int fd) {
  if (!__atomic_load_n(&opened, __ATOMIC_RELAXED)) return 0;
  int saved = errno;
  int yes = is_pagemap(fd);
  errno = saved;
  return yes;
}

/* `count` bytes from offset `from` of a pagemap, which may begin and end within an entry if a stream reads them. */
static void fix(int fd, uint8_t *bytes, size_t count, off_t from) {
  off_t end = from + (off_t)count;
  for (off_t at = from - from % ENTRY_BYTES; at < end; at += ENTRY_BYTES) {
    off_t first = at < from ? from : at, last = at + ENTRY_BYTES > end ? end : at + ENTRY_BYTES;
    uint64_t entry;
    if (last - first == ENTRY_BYTES) memcpy(&entry, bytes + (at - from), sizeof entry);
    else if (shim_syscall(SYS_pread64, fd, &entry, sizeof entry, at, 0, 0) != ENTRY_BYTES) continue;
    if (!(entry & PRESENT)) continue;
    entry = (entry & ~NUMBER) | (uint64_t)(at / ENTRY_BYTES);
    memcpy(bytes + (first - from), (uint8_t *)&entry + (first - at), (size_t)(last - first));
  }
}

void shim_fix_entries(int fd, void *bytes, ssize_t got, off_t from) {
  if (got <= 0 || !shows_entries(fd)) return;
  int saved = errno;
  if (from == -1) from = lseek(fd, 0, SEEK_CUR) - got;
  if (from >= 0) fix(fd, bytes, (size_t)got, from);
  errno = saved;
}

static void fix_vector(int fd, const struct iovec *vector, int parts, ssize_t got, off_t from) {
  if (got <= 0 || !shows_entries(fd)) return;
  int saved = errno;
  if (from == -1) from = lseek(fd, 0, SEEK_CUR) - got;
  size_t left = from >= 0 ? (size_t)got : 0;
  for (int i = 0; i < parts && left > 0; i++) {
    size_t count = vector[i].iov_len < left ? vector[i].iov_len : left;
    fix(fd, vector[i].iov_base, count, from);
    from += (off_t)count;
    left -= count;
  }
  errno = saved;
}

#define PREAD(name, parameters, arguments, ...)                                        \
  NEXT(ssize_t, name, __VA_ARGS__)                                                     \
  EXPORT ssize_t name parameters {                                                     \
    ssize_t got = next_##name() arguments;                                             \
    shim_fix_entries(fd, to, got, from);                                               \
    return got;                                                                        \
  }
PREAD(pread, (int fd, void *to, size_t bytes, off_t from), (fd, to, bytes, from), int, void *, size_t, off_t)
PREAD(pread64, (int fd, void *to, size_t bytes, off64_t from), (fd, to, bytes, from), int, void *, size_t, off64_t)
PREAD(__pread_chk, (int fd, void *to, size_t bytes, off_t from, size_t room), (fd, to, bytes, from, room), int, void *, size_t, off_t, size_t)
PREAD(__pread64_chk, (int fd, void *to, size_t bytes, off64_t from, size_t room), (fd, to, bytes, from, room), int, void *, size_t, off64_t, size_t)

#define READV(name, from, parameters, arguments, ...)                                  \
  NEXT(ssize_t, name, __VA_ARGS__)                                                     \
  EXPORT ssize_t name parameters {                                                     \
    ssize_t got = next_##name() arguments;                                             \
    fix_vector(fd, vector, parts, got, from);                                          \
    return got;                                                                        \
  }
READV(readv, -1, (int fd, const struct iovec *vector, int parts), (fd, vector, parts), int, const struct iovec *, int)
READV(preadv, from, (int fd, const struct iovec *vector, int parts, off_t from), (fd, vector, parts, from), int, const struct iovec *, int, off_t)
READV(preadv64, from, (int fd, const struct iovec *vector, int parts, off64_t from), (fd, vector, parts, from), int, const struct iovec *, int, off64_t)
READV(preadv2, from, (int fd, const struct iovec *vector, int parts, off_t from, int flags), (fd, vector, parts, from, flags), int, const struct iovec *, int, off_t, int)
READV(preadv64v2, from, (int fd, const struct iovec *vector, int parts, off64_t from, int flags), (fd, vector, parts, from, flags), int, const struct iovec *, int, off64_t, int)

/* Streams read with calls of their own. Where they stand tells what was taken from them. */
#define FREAD(name, parameters, arguments, ...)                                        \
  NEXT(size_t, name, __VA_ARGS__)                                                      \
  EXPORT size_t name parameters {                                                      \
    int watched = __atomic_load_n(&opened, __ATOMIC_RELAXED) && shows_entries(fileno(stream)); \
    off_t from = watched ? ftello(stream) : -1;                                        \
    size_t got = next_##name() arguments;                                              \
    if (from >= 0) shim_fix_entries(fileno(stream), to, (ssize_t)(ftello(stream) - from), from); \
    return got;                                                                        \
  }
FREAD(fread, (void *to, size_t bytes, size_t count, FILE *stream), (to, bytes, count, stream), void *, size_t, size_t, FILE *)
#undef fread_unlocked
FREAD(fread_unlocked, (void *to, size_t bytes, size_t count, FILE *stream), (to, bytes, count, stream), void *, size_t, size_t, FILE *)
FREAD(__fread_chk, (void *to, size_t room, size_t bytes, size_t count, FILE *stream), (to, room, bytes, count, stream), void *, size_t, size_t, size_t, FILE *)
FREAD(__fread_unlocked_chk, (void *to, size_t room, size_t bytes, size_t count, FILE *stream), (to, room, bytes, count, stream), void *, size_t, size_t, size_t, FILE *)
