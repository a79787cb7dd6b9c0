// A good guest beside the hostile one: it sends numbered UDP frames and expects each of them back, once and unchanged.
import assert from 'node:assert/strict';
import { createGuestNic, type GuestNic } from '../../src/apps/guest-nic.js';
import type { Datapath } from '../../src/datapath/datapath.js';
import type { Arena } from '../../src/memory/arena.js';
import { MBUF } from '../../src/memory/layout.js';
import { poolFree } from '../../src/memory/pool.js';
import type { VmbusDevice } from '../../src/vmbus/device.js';

const BUFFERS = 256;
const BURST = 32;
/** Where the UDP payload begins: Ethernet, IPv4, UDP. */
const PAYLOAD_AT = 42;
const SIZES = [60, 64, 131, 590, 1200, 1514];

/** An IPv4 UDP frame to port 7 without a UDP checksum; its payload follows from `seed`. */
export function udpFrame(from: Uint8Array, to: Uint8Array, host: number, bytes: number, seed: number): Uint8Array {
  const frame = Uint8Array.from({ length: bytes }, (_, i) => (i * 13 + seed * 31 + (seed >>> 8)) & 0xff);
  const view = new DataView(frame.buffer);
  frame.set(to, 0);
  frame.set(from, 6);
  view.setUint16(12, 0x0800);
  frame.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, host, 10, 0, 0, 1], 14);
  view.setUint16(16, bytes - 14);
  let sum = 0;
  for (let at = 14; at < 34; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  view.setUint16(24, ~sum & 0xffff);
  frame.set([0x80, host, 0, 7, 0, 0, 0, 0], 34);
  view.setUint16(38, bytes - 34);
  view.setUint32(PAYLOAD_AT, seed);
  return frame;
}

export class Bystander {
  readonly nic: GuestNic;
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #peer: Uint8Array;
  readonly #step: () => void;
  readonly #handles: number;
  readonly #expected: Uint8Array[] = [];
  #mac = new Uint8Array(6);
  #seed = 0;
  #nowMs = 0;
  #returned = 0;

  /** `peer` is the station that echoes, `step` lets the other side work. */
  constructor(arena: Arena, datapath: Datapath, device: VmbusDevice, peer: Uint8Array, step: () => void) {
    this.#arena = arena;
    this.#datapath = datapath;
    this.#peer = peer;
    this.#step = step;
    this.nic = createGuestNic(arena, datapath, device, { smallCount: BUFFERS, largeCount: 8, requestTimeoutMs: 200 });
    this.#handles = arena.reserve('bystander handles', BURST * 4);
  }

  async attach(): Promise<void> {
    const info = await this.run(this.nic.device.attach());
    this.#mac = Uint8Array.from(info.mac.split(':'), (byte) => Number.parseInt(byte, 16));
  }

  /** Steps both sides until the promise settles. */
  async run<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const mark = () => {
      settled = true;
    };
    promise.then(mark, mark);
    for (let turns = 0; !settled; turns++) {
      assert.ok(turns < 2000, 'the bystander waits for ever');
      await this.turn();
    }
    return promise;
  }

  async turn(): Promise<void> {
    this.#step();
    this.poll();
    this.#nowMs += 5;
    this.nic.device.tick(this.#nowMs);
    for (let i = 0; i < 8; i++) await null;
  }

  /** Sends `count` frames, at most 32. */
  send(count: number): void {
    const got = this.#datapath.poolGet(this.nic.smallPool, this.#handles, count);
    assert.equal(got, count, 'the bystander has buffers');
    for (let i = 0; i < count; i++) {
      const seed = ++this.#seed;
      const bytes = udpFrame(this.#mac, this.#peer, 2, SIZES[seed % SIZES.length]!, seed);
      const mbuf = this.#arena.u32[(this.#handles >>> 2) + i]!;
      this.#arena.u8.set(bytes, this.#cell(mbuf, MBUF.at.data));
      this.#arena.u32[(mbuf + MBUF.at.dataLength) >>> 2] = bytes.length;
      this.#arena.u32[(mbuf + MBUF.at.packetLength) >>> 2] = bytes.length;
      this.#expected.push(bytes);
    }
    assert.equal(this.nic.device.send(this.#handles, count), count, 'the bystander may send');
  }

  /** Takes what came back; anything but the next expected frame is an error. */
  poll(): void {
    const count = this.nic.device.poll(this.#handles, BURST);
    for (let i = 0; i < count; i++) {
      const mbuf = this.#arena.u32[(this.#handles >>> 2) + i]!;
      const data = this.#cell(mbuf, MBUF.at.data);
      const bytes = this.#arena.u8.slice(data, data + this.#cell(mbuf, MBUF.at.dataLength));
      // A broadcast, or a frame for a station that the switch does not know.
      if (
        Buffer.compare(bytes.subarray(0, 6), this.#mac) !== 0 &&
        Buffer.compare(bytes.subarray(6, 12), this.#mac) !== 0
      )
        continue;
      const expected = this.#expected.shift();
      assert.ok(expected, 'the bystander got a frame too many');
      assert.deepEqual(bytes.subarray(PAYLOAD_AT), expected.subarray(PAYLOAD_AT), 'the next frame, unchanged');
      this.#returned++;
    }
    this.#datapath.mbufFree(this.#handles, count);
  }

  /** Everything sent came back, and nothing is wrong with this device. */
  check(): void {
    for (let turns = 0; turns < 50 && this.#expected.length > 0; turns++) {
      this.#step();
      this.poll();
    }
    assert.equal(this.#expected.length, 0, 'frames of the bystander that did not come back');
    assert.equal(this.#returned, this.#seed);
    assert.equal(this.nic.device.state, 'running');
    const stats = this.nic.device.stats();
    for (const [name, value] of Object.entries(stats)) {
      if (/^rxBad|txFailed|Unknown|failures|bad|unexpected|mismatched|Timeouts/.test(name))
        assert.equal(value, 0, name);
    }
  }

  async close(): Promise<void> {
    await this.run(this.nic.device.detach());
    assert.equal(poolFree(this.#arena, this.nic.smallPool), BUFFERS, 'the bystander has all its buffers back');
    this.#arena.release(this.#handles);
    this.nic.close();
  }

  #cell(address: number, offset: number): number {
    return this.#arena.u32[(address + offset) >>> 2]!;
  }
}
