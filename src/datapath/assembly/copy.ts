// Exact copies: nothing beyond `n` bytes is written, because the next bytes may belong to somebody else (the next
// send section, in flight). The areas must not overlap. v128 beats memory.copy below about 512 bytes
// (facts/performance.md 3).

/** Copies `n` bytes from `s` to `d`. The last 16 bytes overlap what was copied before (or whatever size fits below 16). */
@inline
export function copyBytes(d: u32, s: u32, n: u32): void {
  if (n > 512) {
    memory.copy(d, s, n);
  } else if (n >= 16) {
    let i: u32 = 0;
    for (; i + 64 <= n; i += 64) {
      const a = v128.load(s + i);
      const b = v128.load(s + i, 16);
      const c = v128.load(s + i, 32);
      const e = v128.load(s + i, 48);
      v128.store(d + i, a);
      v128.store(d + i, b, 16);
      v128.store(d + i, c, 32);
      v128.store(d + i, e, 48);
    }
    for (; i + 16 <= n; i += 16) v128.store(d + i, v128.load(s + i));
    if (i < n) v128.store(d + n - 16, v128.load(s + n - 16));
  } else if (n >= 8) {
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

export function copy(d: u32, s: u32, n: u32): void {
  copyBytes(d, s, n);
}
