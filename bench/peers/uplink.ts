// An uplink without a network: counts what guests send to it and makes the packets that they receive.
import { macText } from '../../src/host/identity.js';
import { DEFAULT_VLAN, type FrameSink, UPLINK_FILTER, type Uplink, type VlanMode } from '../../src/host/ports.js';
import type { UplinkContext } from '../../src/host/uplinks/index.js';
import type { Arena } from '../../src/memory/arena.js';
import { FRAME, NO_SECTION } from '../../src/memory/layout.js';
import { ETHER_TYPE, EthernetHeader } from '../../src/wire/ethernet.js';
import { IP_PROTOCOL, Ipv4Header } from '../../src/wire/ip.js';
import { UdpHeader } from '../../src/wire/tcp-udp.js';
import { BURST, OWN_FRAMES_BYTES, ownFrames } from '../traffic.js';

export const UPLINK_MAC = Uint8Array.of(0x02, 0, 0, 0xbe, 0, 1);

/** Bursts of different frames that there can be, where flows are to differ. */
const SETS = 8;
const PORT = 4000;

/** A UDP packet of `bytes` bytes without payload of note. `flow`, below 256: tells its sender. */
function writeUdp(u8: Uint8Array, at: number, bytes: number, destination: string, flow: number): void {
  const ip = at + EthernetHeader.size;
  const udp = ip + Ipv4Header.size;
  const source = macText(UPLINK_MAC);
  EthernetHeader.encodeInto({ destination, source, etherType: ETHER_TYPE.IPV4 }, u8, at);
  const header = {
    ...{ versionHeaderLength: 0x45, totalLength: bytes - EthernetHeader.size, timeToLive: 64 },
    ...{ protocol: IP_PROTOCOL.UDP, source: `10.0.1.${flow}`, destination: '10.0.0.2' },
  };
  Ipv4Header.encodeInto(header, u8, ip);
  const length = bytes - EthernetHeader.size - Ipv4Header.size;
  UdpHeader.encodeInto({ sourcePort: PORT, destinationPort: PORT, length }, u8, udp);
}

export class TrafficUplink implements Uplink {
  readonly number: number;
  readonly name = 'traffic';
  readonly kind = 'pcap' as const;
  macs: readonly Uint8Array[] = [UPLINK_MAC];
  vlan: VlanMode = DEFAULT_VLAN;
  mtu = 1500;
  linkUp = true;
  filter: number = UPLINK_FILTER;
  /** Frames that guests sent here. */
  taken = 0;
  /** Frames that the next poll sends. */
  due = 0;
  readonly #arena: Arena;
  readonly #sink: FrameSink;
  readonly #frames: number;
  #sets = 1;
  #set = 0;

  constructor({ arena, sink, number }: UplinkContext) {
    this.number = number;
    this.#arena = arena;
    this.#sink = sink;
    this.#frames = arena.reserve('traffic frames', SETS * OWN_FRAMES_BYTES);
  }

  /** What it sends from now on: frames of that length to that station, of one flow or of many. */
  send(bytes: number, destination: string, many = false): void {
    const { u8, u32 } = this.#arena;
    this.#sets = many ? SETS : 1;
    for (let set = 0; set < this.#sets; set++) {
      const frames = ownFrames(u32, this.#frames + set * OWN_FRAMES_BYTES, bytes);
      for (const [i, { frame, data }] of frames.entries()) {
        u32[(frame + FRAME.at.source) >>> 2] = this.number;
        u32[(frame + FRAME.at.transaction) >>> 2] = NO_SECTION;
        writeUdp(u8, data, bytes, destination, many ? set * BURST + i : 0);
      }
    }
  }

  deliver(_frames: number, count: number): void {
    this.taken += count;
  }

  poll(): number {
    const due = this.due;
    this.due = 0;
    for (let sent = 0; sent < due; sent += BURST) {
      this.#set = this.#set + 1 < this.#sets ? this.#set + 1 : 0;
      this.#sink.forward(this.#frames + this.#set * OWN_FRAMES_BYTES, Math.min(BURST, due - sent));
    }
    return due;
  }

  tick(_nowMs: number): void {}

  fds(): readonly number[] {
    return [];
  }

  arm(): boolean {
    return true;
  }

  close(): void {
    this.#arena.release(this.#frames);
  }

  stats(): Record<string, number> {
    return { taken: this.taken };
  }
}
