// An uplink that checks what it gets and sends numbered packets of its own.
import type { Datapath } from '../../src/datapath/datapath.js';
import { FrameWorkshop } from '../../src/host/frames.js';
import { DEFAULT_VLAN, type FrameSink, UPLINK_FILTER, type Uplink, type VlanMode } from '../../src/host/ports.js';
import type { UplinkContext } from '../../src/host/uplinks/index.js';
import type { Arena } from '../../src/memory/arena.js';
import { FRAGMENT, FRAME, NO_SECTION, PACKET_FLAG } from '../../src/memory/layout.js';
import type { Outgoing } from './guest.js';
import type { Ledger } from './ledger.js';
import { sentFrame } from './packets.js';

const AT = FRAME.at;
const BURST = 16;
const SLOT = 16_384;
const TAGGED_AT = 12;

export class SinkUplink implements Uplink {
  readonly number: number;
  readonly name = 'sink';
  readonly kind = 'pcap' as const;
  readonly macs: readonly Uint8Array[] = [Uint8Array.of(2, 0, 0, 0x51, 0x4e, 0x4b)];
  readonly vlan: VlanMode = DEFAULT_VLAN;
  readonly mtu = 9000;
  linkUp = true;
  readonly filter = UPLINK_FILTER;
  readonly queue: Outgoing[] = [];
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #sink: FrameSink;
  readonly #workshop: FrameWorkshop;
  readonly #memory: number;
  readonly #ledger: Ledger;
  readonly #stationOf: (mac: string) => string;

  constructor(context: UplinkContext, ledger: Ledger, stationOf: (mac: string) => string) {
    this.number = context.number;
    this.#arena = context.arena;
    this.#datapath = context.datapath;
    this.#sink = context.sink;
    this.#ledger = ledger;
    this.#stationOf = stationOf;
    this.#workshop = new FrameWorkshop(context.arena, context.datapath, 'sink workshop');
    this.#memory = context.arena.reserve('sink frames', BURST * (FRAME.bytes + FRAGMENT.bytes + SLOT) + (1 << 17));
  }

  deliver(frames: number, count: number): void {
    const { u32, u8 } = this.#arena;
    const bytes = this.#memory + BURST * (FRAME.bytes + FRAGMENT.bytes + SLOT);
    this.#workshop.begin(frames, count, 0);
    for (let n = this.#workshop.next(); n > 0; n = this.#workshop.next()) {
      for (let i = 0; i < n; i++) {
        const frame = u32[(this.#workshop.output >>> 2) + i]!;
        this.#datapath.frameGather(frame, bytes);
        const copy = u8.slice(bytes, bytes + u32[(frame + AT.length) >>> 2]!);
        const tagged = (u32[(frame + AT.flags) >>> 2]! & PACKET_FLAG.VLAN) !== 0;
        const sender = this.#stationOf(Buffer.from(copy.subarray(6, 12)).toString('hex'));
        this.#ledger.arrived(
          'sink',
          sender,
          copy,
          tagged ? u32[(frame + AT.vlanTci) >>> 2]! : undefined,
          false,
          undefined,
        );
      }
    }
  }

  poll(): number {
    const count = Math.min(BURST, this.queue.length);
    if (count === 0) return 0;
    const { u32, u8 } = this.#arena;
    this.queue.splice(0, count).forEach(({ packet, to }, i) => {
      const bytes = sentFrame(packet);
      const frame = this.#memory + i * FRAME.bytes;
      const fragment = this.#memory + BURST * FRAME.bytes + i * FRAGMENT.bytes;
      const at = this.#memory + BURST * (FRAME.bytes + FRAGMENT.bytes) + i * SLOT;
      u8.set(bytes, at);
      u32.fill(0, frame >>> 2, (frame + FRAME.bytes) >>> 2);
      u32[fragment >>> 2] = at;
      u32[(fragment + 4) >>> 2] = bytes.length;
      u32[(frame + AT.fragments) >>> 2] = fragment;
      u32[(frame + AT.fragmentCount) >>> 2] = 1;
      u32[(frame + AT.length) >>> 2] = bytes.length;
      u32[(frame + AT.head) >>> 2] = at;
      u32[(frame + AT.source) >>> 2] = this.number;
      u32[(frame + AT.transaction) >>> 2] = NO_SECTION;
      if (packet.tci !== undefined && !packet.tagInData) {
        u32[(frame + AT.flags) >>> 2] = PACKET_FLAG.VLAN;
        u32[(frame + AT.vlanTci) >>> 2] = packet.tci;
      } else if (packet.tci !== undefined && u8[at + TAGGED_AT] !== 0x81) throw new Error('sink: tag missing');
      this.#ledger.sent({ packet, from: 'sink', to });
    });
    this.#sink.forward(this.#memory, count);
    return count;
  }

  tick(_nowMs: number): void {}

  fds(): readonly number[] {
    return [];
  }

  arm(): boolean {
    return this.queue.length === 0;
  }

  close(): void {
    this.#workshop.release();
    this.#arena.release(this.#memory);
  }

  stats(): Record<string, number> {
    return { refused: this.#workshop.counters().refused };
  }
}
