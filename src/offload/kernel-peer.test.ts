// Linux as the second opinion: packets go into one TAP of a bridge and come out of another. Towards a TAP without
// offloads the kernel itself segments and completes checksums; its work must equal ours byte for byte.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, readSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { VNET_HEADER_BYTES } from '../datapath/datapath.js';
import { MBUF, PACKET_FLAG } from '../memory/layout.js';
import { createNetwork, enterNetwork, openNetwork } from '../memory/os/netns.js';
import { openTap, setTapOffload, TAP_OFFLOAD } from '../memory/os/tap.js';
import {
  BASE,
  buildPacket,
  checksumField,
  OUTPUT,
  type Packet,
  type PacketSpec,
  put16,
  testMemory,
} from './offload-testing.js';

const { u8, u32, datapath } = testMemory();
const { IPV4, IPV6, TCP, UDP, VLAN, TX_IP_CHECKSUM, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM, TX_TSO } = PACKET_FLAG;
const MBUF_AT = OUTPUT + 0x80000;
const LENGTHS = OUTPUT + 0x90000;
const MSS = 1200;
const STRIDE = 2048;
const ADDRESSES = [0x02, 0, 0, 0, 0, 0x0b, 0x02, 0, 0, 0, 0, 0x0a];
const setCell = (name: keyof typeof MBUF.at, value: number) => {
  u32[(MBUF_AT + MBUF.at[name]) >>> 2] = value;
};
const cell = (name: keyof typeof MBUF.at) => u32[(MBUF_AT + MBUF.at[name]) >>> 2]!;

/** Two TAPs on a bridge in a network namespace of their own, which goes with them; a string says why there are none. */
function bridge(): { from: number; to: number } | string {
  let home: number | undefined;
  let network: number | undefined;
  const taps: number[] = [];
  try {
    home = openNetwork('this thread');
    network = createNetwork();
    enterNetwork(network);
    taps.push(openTap('from').fd, openTap('to').fd);
    const commands = [
      'link add bridge0 type bridge',
      'link set bridge0 up',
      ...['from', 'to'].flatMap((tap) => [`link set ${tap} master bridge0`, `link set ${tap} up`]),
    ];
    for (const command of commands) {
      const run = spawnSync('ip', command.split(' '), { encoding: 'utf8' });
      if (run.status !== 0) throw new Error(`ip ${command}: ${run.stderr ?? run.error}`);
    }
    return { from: taps[0]!, to: taps[1]! };
  } catch (error) {
    for (const fd of taps) closeSync(fd);
    return String(error);
  } finally {
    if (home !== undefined) {
      enterNetwork(home);
      closeSync(home);
    }
    if (network !== undefined) closeSync(network);
  }
}

const pause = new Int32Array(new SharedArrayBuffer(4));

/** The next `count` packets of ours (the kernel sends some of its own), header included. */
function receive(fd: number, count: number): Uint8Array[] {
  const packets: Uint8Array[] = [];
  const buffer = new Uint8Array(70_000);
  for (let idle = 0; packets.length < count && idle < 2000; ) {
    try {
      const bytes = readSync(fd, buffer);
      const at = VNET_HEADER_BYTES;
      if (ADDRESSES.every((b, i) => buffer[at + i] === b)) packets.push(buffer.slice(0, bytes));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      Atomics.wait(pause, 0, 0, 1);
      idle++;
    }
  }
  return packets;
}

function packets(payload: number): Packet[] {
  const shapes = [
    { family: 4, ipOptions: 0 },
    { family: 4, ipOptions: 3 },
    { family: 6, ipOptions: 0 },
    { family: 6, ipOptions: 2 },
  ] as const;
  return shapes.flatMap((shape, i) =>
    ([6, 17] as const).map((protocol) => {
      const spec: PacketSpec = { ...shape, protocol, tcpOptions: 3, tcpFlags: 0x19, payload, seed: 31 + i };
      const packet = buildPacket(spec);
      packet.bytes.set(ADDRESSES); // no checksum covers them
      return packet;
    }),
  );
}

const workFlags = (p: Packet) => (p.spec.protocol === 6 ? TCP | TX_TCP_CHECKSUM : UDP | TX_UDP_CHECKSUM);

const familyFlag = (p: Packet) => (p.spec.family === 4 ? IPV4 : IPV6);
const nameOf = ({ spec }: Packet) => `IPv${spec.family}, protocol ${spec.protocol}, options ${spec.ipOptions}`;

/** Sends the packet with that work pending. */
function send(fd: number, p: Packet, flags: number, mss: number, vlanTci = 0): void {
  u8.set(p.bytes, BASE + 128);
  put16(u8, BASE + 128 + checksumField(p), 0xdead);
  u32.fill(0, MBUF_AT >>> 2, (MBUF_AT + MBUF.bytes) >>> 2);
  const cells = {
    buffer: BASE,
    data: BASE + 128,
    dataLength: p.bytes.length,
    packetLength: p.bytes.length,
    segments: 1,
  };
  for (const [name, value] of Object.entries({ ...cells, flags, mss, vlanTci, l4Offset: p.l4 })) {
    setCell(name as keyof typeof MBUF.at, value);
  }
  const at = datapath.mbufToVnet(MBUF_AT) >>> 0;
  assert.notEqual(at, 0);
  const bytes = cell('dataLength') + VNET_HEADER_BYTES;
  assert.equal(writeSync(fd, u8.slice(at, at + bytes)), bytes);
}

test('Linux agrees about segments, checksums and large packets', (t) => {
  const taps = bridge();
  if (typeof taps === 'string') return t.skip(`no TAP bridge: ${taps}`);
  try {
    setTapOffload(taps.to, 0);
    for (const p of packets(1001)) {
      send(taps.from, p, familyFlag(p) | workFlags(p), 0);
      const [whole] = receive(taps.to, 1);
      assert.deepEqual(whole?.subarray(VNET_HEADER_BYTES), p.bytes, `checksum: ${nameOf(p)}`);
    }
    for (const p of packets(5000)) {
      send(taps.from, p, familyFlag(p) | workFlags(p) | TX_TSO | TX_IP_CHECKSUM, MSS);
      u8.set(p.bytes, BASE);
      const count = datapath.segment(BASE, p.bytes.length, p.l4, MSS, OUTPUT, STRIDE, LENGTHS, 16);
      assert.equal(count, 5);
      const theirs = receive(taps.to, count);
      assert.equal(theirs.length, count, nameOf(p));
      theirs.forEach((segment, i) => {
        const at = OUTPUT + i * STRIDE;
        const ours = u8.slice(at, at + u32[(LENGTHS >>> 2) + i]!);
        assert.deepEqual(segment.subarray(VNET_HEADER_BYTES), ours, `segment ${i}: ${nameOf(p)}`);
      });
    }

    const all = Object.values(TAP_OFFLOAD).reduce((bits, bit) => bits | bit, 0);
    if (setTapOffload(taps.to, all) !== all) return t.diagnostic('no USO in this kernel: large packets not compared');
    for (const p of packets(5000)) {
      const name = nameOf(p);
      const ip = p.spec.family === 4 ? IPV4 | TX_IP_CHECKSUM : IPV6;
      const flags = ip | workFlags(p) | TX_TSO | VLAN;
      send(taps.from, p, flags, MSS, 0x2000);
      const [large] = receive(taps.to, 1);
      assert.ok(large, `large: ${name}`);
      u8.set(large, BASE + 128 - VNET_HEADER_BYTES);
      setCell('data', BASE + 128);
      assert.equal(datapath.vnetToMbuf(MBUF_AT, large.length), 1, `large: ${name}`);
      assert.deepEqual(
        [cell('flags'), cell('mss'), cell('vlanTci'), cell('l4Offset')],
        [flags, MSS, 0x2000, p.l4],
        name,
      );
      assert.equal(datapath.checksumFinish(cell('data'), cell('dataLength'), flags, p.l4), 1);
      assert.deepEqual(u8.slice(cell('data'), cell('data') + cell('dataLength')), p.bytes, `large: ${name}`);
    }
  } finally {
    closeSync(taps.from);
    closeSync(taps.to);
  }
});
