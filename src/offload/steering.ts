// The choice of a transmit queue for each packet: what control code sets, for the compiled steer() of every thread that sends.
import { randomBytes } from 'node:crypto';
import type { Arena } from '../memory/arena.js';
import { STEER_ENTRIES, STEER_PORTS, STEER_QUEUES, STEERING } from '../memory/layout.js';

export type SteeredFlow = keyof typeof STEER_PORTS;

export class TransmitSteering {
  /** Address of the STEERING, for datapath.steer() in any thread. */
  readonly address: number;
  readonly #arena: Arena;
  readonly #table: number;

  /** Everything goes to queue 0 at first. `seed`, 8 bytes: another one spreads flows differently. */
  constructor(arena: Arena, seed: Uint8Array = randomBytes(8)) {
    this.#arena = arena;
    this.address = arena.reserve('transmit steering', STEERING.bytes + STEER_ENTRIES * 4);
    this.#table = this.address + STEERING.bytes;
    arena.u8.set(seed.subarray(0, 8), this.address + STEERING.at.seedLow);
    arena.u32[(this.address + STEERING.at.table) >>> 2] = this.#table;
    this.configure(new Array<number>(STEER_ENTRIES).fill(0), {});
  }

  /**
   * Sets the queue of each hash value, and which protocols are hashed with their ports ("L4"). Others may steer meanwhile: their packets go
   * by the old entries or the new ones. Throws a RangeError for tables that are none.
   */
  configure(table: readonly number[], levels: Readonly<Partial<Record<SteeredFlow, 'L3' | 'L4'>>>): void {
    if (table.length !== STEER_ENTRIES)
      throw new RangeError(`steering: expected a table of ${STEER_ENTRIES} entries, got ${table.length}`);
    const wrong = table.find((queue) => !(Number.isInteger(queue) && queue >= 0 && queue < STEER_QUEUES));
    if (wrong !== undefined) throw new RangeError(`steering: expected queues 0 to ${STEER_QUEUES - 1}, got ${wrong}`);
    this.#arena.u32.set(table, this.#table >>> 2);
    let bits = 0;
    for (const [flow, bit] of Object.entries(STEER_PORTS)) if (levels[flow as SteeredFlow] === 'L4') bits |= bit;
    this.#arena.u32[(this.address + STEERING.at.levels) >>> 2] = bits;
  }

  close(): void {
    this.#arena.release(this.address);
  }
}
