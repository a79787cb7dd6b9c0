// Exact copies: nothing beyond `n` bytes is written, because the next bytes may belong to somebody else (the next
// send section, in flight). The areas must not overlap. v128 beats memory.copy below about 512 bytes
// (facts/performance.md 3).

const LARGE: u32 = 512;

/** 16 or 64 bytes at a time, as one piece. */
@inline
function copy16(d: u32, s: u32): void {
  v128.store(d, v128.load(s));
}
@inline
function copy64(d: u32, s: u32): void {
  const a = v128.load(s);
  const b = v128.load(s, 16);
  const c = v128.load(s, 32);
  const e = v128.load(s, 48);
  v128.store(d, a);
  v128.store(d, b, 16);
  v128.store(d, c, 32);
  v128.store(d, e, 48);
}

/** Fewer than 16 bytes. */
function copyFew(d: u32, s: u32, n: u32): void {
  if (n >= 8) {
    const first = load<u64>(s);
    const last = load<u64>(s + n - 8);
    store<u64>(d, first);
    store<u64>(d + n - 8, last);
  } else if (n >= 4) {
    const first = load<u32>(s);
    const last = load<u32>(s + n - 4);
    store<u32>(d, first);
    store<u32>(d + n - 4, last);
  } else if (n >= 2) {
    const first = load<u16>(s);
    const last = load<u16>(s + n - 2);
    store<u16>(d, first);
    store<u16>(d + n - 2, last);
  } else if (n == 1) {
    store<u8>(d, load<u8>(s));
  }
}

/** Copies `n` bytes from `s` to `d`. The last piece overlaps what was copied before. */
@inline
export function copyBytes(d: u32, s: u32, n: u32): void {
  if (n > LARGE) {
    memory.copy(d, s, n);
  } else if (n >= 64) {
    const end = n - 64;
    if (end != 0) for (let i: u32 = 0; i < end; i += 64) copy64(d + i, s + i);
    copy64(d + end, s + end);
  } else if (n >= 16) {
    const end = n - 16;
    copy16(d, s);
    if (n > 32) {
      copy16(d + 16, s + 16);
      copy16(d + end - 16, s + end - 16);
    }
    copy16(d + end, s + end);
  } else copyFew(d, s, n);
}

export function copy(d: u32, s: u32, n: u32): void {
  copyBytes(d, s, n);
}
