// Subchannels of one opening on the memory backend. Both sides use their rings in one arena, so the memory goes back when
// both are done with it: the guest has closed the device, the host has heard that the opening ended.
import type { Arena } from '../../memory/arena.js';
import { PAGE_BYTES, type Subchannel, type SubchannelOffer, VmbusError } from '../device.js';
import { openHostRings, splitRings } from '../rings.js';

/** Channel ids of a bus end here (facts/hyper-v-host.md 2.4). */
const RELID_MAX = 2047;

/** What the devices of a bus share. */
export interface BusParts {
  readonly arena: Arena;
  /** Bytes of both rings of a channel. */
  readonly ringBytes: number;
  /** Channel ids and monitor ids in use. */
  readonly relids: Set<number>;
  readonly monitors: Set<number>;
  /** Address of the monitor page, 0 = none. */
  monitorPage: number;
}

interface Entry {
  readonly offer: SubchannelOffer;
  readonly guest: Subchannel;
  readonly memory: number;
  published: boolean;
  taken: boolean;
}

export class MemorySubchannels {
  readonly all: Entry[] = [];
  readonly #parts: BusParts;
  readonly #toHost: (monitorId: number | undefined) => void;
  readonly #toGuest: () => void;
  #guestDone = false;
  #hostDone = false;

  constructor(parts: BusParts, toHost: (monitorId: number | undefined) => void, toGuest: () => void) {
    this.#parts = parts;
    this.#toHost = toHost;
    this.#toGuest = toGuest;
  }

  /** Some memory is not given back yet. */
  get held(): boolean {
    return this.all.length > 0;
  }

  create(uuid: string, takeMonitor: () => number | undefined): SubchannelOffer {
    const { arena, ringBytes, relids } = this.#parts;
    const relid = freeRelid(relids);
    if (relid === undefined) throw new VmbusError(`vmbus ${uuid} (memory): no subchannel, all channel ids are in use`);
    const subchannelId = this.all.length + 1;
    let memory: number;
    try {
      memory = arena.reserve(`vmbus ${uuid} subchannel ${subchannelId} rings`, ringBytes, PAGE_BYTES);
    } catch (cause) {
      throw new VmbusError(`vmbus ${uuid} (memory): no subchannel: ${(cause as Error).message}`, { cause });
    }
    relids.add(relid);
    const monitorId = takeMonitor();
    const { first, second } = splitRings(memory, ringBytes);
    openHostRings(arena, first, second);
    const common = { relid, subchannelId, monitorId };
    const entry: Entry = {
      offer: {
        ...common,
        fromGuest: first,
        toGuest: second,
        publish: () => {
          entry.published = true;
        },
        signal: this.#toGuest,
      },
      guest: { ...common, transmit: first, receive: second, doorbell: 0, signal: () => this.#toHost(monitorId) },
      memory,
      published: false,
      taken: false,
    };
    this.all.push(entry);
    return entry.offer;
  }

  /** For the guest: one that is published and that it has not got yet. */
  next(): Subchannel | undefined {
    const entry = this.all.find(({ published, taken }) => published && !taken);
    if (!entry) return undefined;
    entry.taken = true;
    return entry.guest;
  }

  guestDone(): void {
    this.#guestDone = true;
    if (this.#hostDone) this.#release();
  }

  hostDone(): void {
    this.#hostDone = true;
    if (this.#guestDone) this.#release();
  }

  #release(): void {
    const { arena, relids, monitors } = this.#parts;
    for (const { offer, memory } of this.all.splice(0)) {
      arena.release(memory);
      relids.delete(offer.relid);
      if (offer.monitorId !== undefined) monitors.delete(offer.monitorId);
    }
  }
}

/** The lowest channel id that is not in use. */
export function freeRelid(used: ReadonlySet<number>): number | undefined {
  for (let relid = 1; relid <= RELID_MAX; relid++) if (!used.has(relid)) return relid;
  return undefined;
}
