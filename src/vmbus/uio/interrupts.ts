// The interrupt descriptor's words, as uio_hv_generic defines them (facts/linux-guest.md 9.3): a guest writes a 32-bit
// command and reads a 32-bit running count. On a machine directory both cross a Unix stream socket.

/** What a guest may write. */
export const IRQ_COMMAND = {
  /** Masks the guest's receive ring. */
  DISABLE: 0,
  /** Unmasks it, and signals the host. */
  ENABLE: 1,
  /** Signals the host and leaves the mask alone. Machine directories only: a kernel takes it for ENABLE. */
  SIGNAL: 2,
  /**
   * With a number of 4 KiB pages in the lower 16 bits: so many of the receive buffer's are its GPADL, as of now. Machine directories only:
   * on Hyper-V a guest chooses the size with the GPADL that it makes, and NVSP names nothing but the GPADL.
   */
  RECEIVE_PAGES: 0x4e56_0000,
} as const;

/** Pages that a RECEIVE_PAGES command names; 0: the word is none. */
export function receivePages(word: number): number {
  const pages = word & 0xffff;
  return (word ^ pages) >>> 0 === IRQ_COMMAND.RECEIVE_PAGES ? pages : 0;
}

/** Puts a byte stream back into little-endian words, whatever pieces it comes in. */
export class WordReader {
  readonly #carry = new Uint8Array(4);
  #carried = 0;

  /** Calls `handler` for each complete word of `carry + bytes[0, length)`. */
  push(bytes: Uint8Array, length: number, handler: (word: number) => void): void {
    const carry = this.#carry;
    for (let i = 0; i < length; i++) {
      carry[this.#carried++] = bytes[i]!;
      if (this.#carried < 4) continue;
      this.#carried = 0;
      handler((carry[0]! | (carry[1]! << 8) | (carry[2]! << 16) | (carry[3]! << 24)) >>> 0);
    }
  }

  reset(): void {
    this.#carried = 0;
  }
}
