// Requests that wait for the host's answer. A request is matched by its id, by the message type that answers it and by the
// least length of that answer; whatever else comes is counted and changes nothing (facts/linux-guest.md 10.1 D2, D20, D21).

import { NVSP_STATUS } from '../wire/nvsp.js';

/** A step of attach, detach or control that failed; the message names device, step and message. */
export class NetvscError extends Error {
  override name = 'NetvscError';
  /** What the driver was doing, e.g. "NVSP receive buffer". */
  readonly step: string;
  /** What was expected and what came. */
  readonly what: string;

  constructor(where: string, step: string, what: string) {
    super(`${where}: ${step}: ${what}`);
    this.step = step;
    this.what = what;
  }
}

/** What answers a request. */
export interface Expected {
  readonly type: number;
  /** Name of that message, for errors. */
  readonly name: string;
  /** Least bytes of the answer, its type cell included. */
  readonly bytes: number;
}

interface Pending {
  readonly step: string;
  readonly expected: Expected;
  deadline: number; // NaN until the first tick after the request
  readonly resolve: (payload: Uint8Array) => void;
  readonly reject: (error: NetvscError) => void;
}

export class RequestTable {
  /** Answers to nothing that waits: unknown id, a second answer, or one that came too late. */
  unexpected = 0;
  /** Answers of the wrong type or length; their request failed. */
  mismatched = 0;
  timeouts = 0;
  readonly #where: string;
  readonly #timeoutMs: number;
  readonly #pending = new Map<number, Pending>();
  #last = 0;

  /** `where` names the device in errors. */
  constructor(where: string, timeoutMs: number) {
    this.#where = where;
    this.#timeoutMs = timeoutMs;
  }

  get waiting(): number {
    return this.#pending.size;
  }

  has(id: number): boolean {
    return this.#pending.has(id);
  }

  /** A new request. `failed` runs at once when it fails, before the promise's own handlers. */
  open(
    step: string,
    expected: Expected,
    failed?: (error: NetvscError) => void,
  ): { id: number; reply: Promise<Uint8Array> } {
    do {
      this.#last = this.#last === 0xffffffff ? 1 : this.#last + 1;
    } while (this.#pending.has(this.#last));
    const id = this.#last;
    const reply = new Promise<Uint8Array>((resolve, reject) => {
      const rejected = (error: NetvscError): void => {
        failed?.(error);
        reject(error);
      };
      this.#pending.set(id, { step, expected, deadline: Number.NaN, resolve, reject: rejected });
    });
    reply.catch(() => {}); // who waits sees the error; a request that nobody waits for must not end the process
    return { id, reply };
  }

  /**
   * Hands in an answer. True when it was what its request waited for; a wrong type or length fails the request (there is
   * one answer per id, the right one cannot follow).
   */
  answer(id: number, type: number, payload: Uint8Array): boolean {
    const request = this.#pending.get(id);
    if (!request) {
      this.unexpected++;
      return false;
    }
    this.#pending.delete(id);
    const { expected } = request;
    if (type !== expected.type) {
      this.mismatched++;
      request.reject(
        this.#error(
          request,
          `expected ${expected.name} (${hex(expected.type)}), got message ${hex(type)} of ${payload.length} bytes`,
        ),
      );
      return false;
    }
    if (payload.length < expected.bytes) {
      this.mismatched++;
      request.reject(
        this.#error(request, `${expected.name} has ${payload.length} bytes, expected at least ${expected.bytes}`),
      );
      return false;
    }
    request.resolve(payload);
    return true;
  }

  /** Fails one request, if it still waits. */
  fail(id: number, what: string): void {
    const request = this.#pending.get(id);
    if (!request) return;
    this.#pending.delete(id);
    request.reject(this.#error(request, what));
  }

  tick(nowMs: number): void {
    for (const [id, request] of this.#pending) {
      if (Number.isNaN(request.deadline)) {
        request.deadline = nowMs + this.#timeoutMs;
      } else if (nowMs >= request.deadline) {
        this.timeouts++;
        this.fail(id, `no ${request.expected.name} from the host within ${this.#timeoutMs} ms`);
      }
    }
  }

  /** Fails everything that waits. */
  abort(what: string): void {
    for (const id of [...this.#pending.keys()]) this.fail(id, what);
  }

  #error(request: Pending, what: string): NetvscError {
    return new NetvscError(this.#where, request.step, what);
  }
}

export function hex(value: number): string {
  return `0x${(value >>> 0).toString(16)}`;
}

/** An NVSP status with its name, for errors. */
export function nvspStatus(status: number): string {
  const name = Object.entries(NVSP_STATUS).find(([, value]) => value === status)?.[0];
  return name === undefined ? `${status}` : `${status} (${name})`;
}
