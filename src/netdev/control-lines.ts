// Lines of a stream of bytes, bounded: a peer that never ends its line costs no more than the bound.

const NEWLINE = 10;

export class LineReader {
  readonly #maxBytes: number;
  #parts: Buffer[] = [];
  #bytes = 0;

  /** `maxBytes`: of a line without its end. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Bytes of a line that has not ended. */
  get pending(): number {
    return this.#bytes;
  }

  /** Lines that end in `data`; undefined as soon as one is longer than it may be, what comes later is not looked at. */
  push(data: Buffer): string[] | undefined {
    const lines: string[] = [];
    let rest = data;
    for (let end = rest.indexOf(NEWLINE); end >= 0; end = rest.indexOf(NEWLINE)) {
      if (this.#bytes + end > this.#maxBytes) return undefined;
      lines.push(Buffer.concat([...this.#parts, rest.subarray(0, end)]).toString('utf8'));
      this.#parts = [];
      this.#bytes = 0;
      rest = rest.subarray(end + 1);
    }
    if (rest.length > 0) {
      this.#bytes += rest.length;
      if (this.#bytes > this.#maxBytes) return undefined;
      this.#parts.push(Buffer.from(rest));
    }
    return lines;
  }
}
