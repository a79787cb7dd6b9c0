// The choice of transmit queues: against a model that knows flows and not hashes. What is of one flow stays together and in order, what
// is not spreads.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createDatapath } from '../datapath/datapath.js';
import { Arena } from '../memory/arena.js';
import { MBUF, STEER_BURST, STEER_ENTRIES, STEER_QUEUES } from '../memory/layout.js';
import { type SteeredFlow, TransmitSteering } from './steering.js';

const arena = Arena.create({ bytes: 4 << 20 });
const datapath = createDatapath(arena.memory);
const handles = arena.reserve('handles', STEER_BURST * 4);
const sorted = arena.reserve('sorted', STEER_BURST * 4);
const counts = arena.reserve('counts', STEER_QUEUES * 4);
const SLOT = 256;
const mbufs = arena.reserve('mbufs', STEER_BURST * SLOT);
const TURNS = Array.from({ length: STEER_ENTRIES }, (_, i) => i);
const ALL = { tcp4: 'L4', udp4: 'L4', tcp6: 'L4', udp6: 'L4' } as const;

interface Packet {
  readonly family: 4 | 6 | 0;
  readonly protocol: 'tcp' | 'udp' | 'icmp';
  readonly host: number;
  readonly port: number;
  readonly fragment: 'none' | 'first' | 'later';
  readonly tagged: boolean;
}

const NUMBERS = { tcp: 6, udp: 17, icmp: 1 } as const;

function bytesOf({ family, protocol, host, port, fragment, tagged }: Packet): number[] {
  const l2 = [2, 0, 0, 0, 0, host, 2, 0, 0, 0, 1, host, ...(tagged ? [0x81, 0, 0, 7] : [])];
  const offset = fragment === 'later' ? 100 : 0;
  const more = fragment === 'first';
  const l4 = [0, port, 0, 80, 0, 0, 0, port, 9, 9, 9, 9, 0x50, 0, 0, 0, 0, 0, 0, 0];
  if (family === 0) return [...l2, 0x88, 0xb5, port, port, ...l4];
  if (family === 4) {
    const ip = [
      0x45,
      0,
      0,
      40,
      port,
      port,
      more ? 0x20 : 0,
      offset,
      64,
      NUMBERS[protocol],
      0,
      0,
      10,
      0,
      0,
      1,
      10,
      0,
      0,
      host,
    ];
    return [...l2, 8, 0, ...ip, ...l4];
  }
  const pieces = fragment === 'none' ? [] : [NUMBERS[protocol], 0, offset, more ? 1 : 0, 0, 0, 0, 0];
  const from = new Array<number>(16).fill(1);
  const to = [...new Array<number>(15).fill(2), host];
  const next = pieces.length > 0 ? 44 : NUMBERS[protocol];
  return [...l2, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 20 + pieces.length, next, 64, ...from, ...to, ...pieces, ...l4];
}

/** What of a packet says where it goes. */
function flowOf(packet: Packet, levels: Partial<Record<SteeredFlow, 'L3' | 'L4'>>): string {
  const { family, protocol, host, port, fragment } = packet;
  const flow = `${protocol}${family}` as SteeredFlow;
  const ports = family !== 0 && protocol !== 'icmp' && fragment === 'none' && levels[flow] === 'L4';
  return `${family} ${host} ${ports ? `${protocol} ${port}` : ''}`;
}

function put(packets: readonly Packet[], cut?: number): number[] {
  return packets.map((packet, i) => {
    const mbuf = mbufs + i * SLOT;
    const bytes = bytesOf(packet).slice(0, cut);
    arena.u8.set(bytes, mbuf + MBUF.bytes);
    arena.u32[(mbuf + MBUF.at.data) >>> 2] = mbuf + MBUF.bytes;
    arena.u32[(mbuf + MBUF.at.dataLength) >>> 2] = bytes.length;
    arena.u32[(mbuf + MBUF.at.packetLength) >>> 2] = bytes.length;
    arena.u32[(handles >>> 2) + i] = mbuf;
    return mbuf;
  });
}

/** Mbufs by queue. */
function steer(steering: TransmitSteering, list: readonly number[]): number[][] {
  datapath.steer(steering.address, handles, list.length, sorted, counts);
  let at = sorted >>> 2;
  return Array.from({ length: STEER_QUEUES }, (_, queue) => {
    const count = arena.u32[(counts >>> 2) + queue]!;
    const part = [...arena.u32.subarray(at, at + count)];
    at += count;
    return part;
  });
}

const anyPacket: fc.Arbitrary<Packet> = fc.record({
  family: fc.constantFrom(4, 6, 0),
  protocol: fc.constantFrom('tcp', 'udp', 'icmp'),
  host: fc.integer({ min: 1, max: 6 }),
  port: fc.integer({ min: 1, max: 6 }),
  fragment: fc.constantFrom('none', 'none', 'first', 'later'),
  tagged: fc.boolean(),
});
const anyLevel = fc.constantFrom('L3', 'L4');

test('every packet is sent once, a flow on one queue and in its order, whatever the levels', () => {
  const steering = new TransmitSteering(arena, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  try {
    fc.assert(
      fc.property(
        fc.array(anyPacket, { maxLength: 200 }),
        fc.array(fc.integer({ min: 0, max: STEER_QUEUES - 1 }), { minLength: STEER_ENTRIES, maxLength: STEER_ENTRIES }),
        fc.record({ tcp4: anyLevel, udp4: anyLevel, tcp6: anyLevel, udp6: anyLevel }),
        (packets, table, levels) => {
          steering.configure(table, levels);
          const list = put(packets);
          const queues = steer(steering, list);
          assert.deepEqual(
            [...queues.flat()].sort((a, b) => a - b),
            list,
            'each once',
          );
          const places = new Map<string, number>();
          for (const [queue, part] of queues.entries()) {
            assert.ok(part.length === 0 || table.includes(queue), `queue ${queue} is in the table`);
            assert.deepEqual(
              part,
              [...part].sort((a, b) => a - b),
              'in their order',
            );
            for (const mbuf of part) {
              const flow = flowOf(packets[(mbuf - mbufs) / SLOT]!, levels);
              assert.equal(places.get(flow) ?? queue, queue, flow);
              places.set(flow, queue);
            }
          }
        },
      ),
      { numRuns: 300 },
    );
  } finally {
    steering.close();
  }
});

test('flows spread evenly where their level tells them apart, and not at all where it does not', () => {
  const steering = new TransmitSteering(arena, Uint8Array.of(8, 7, 6, 5, 4, 3, 2, 1));
  try {
    for (const [family, protocol] of [
      [4, 'tcp'],
      [4, 'udp'],
      [6, 'tcp'],
      [6, 'udp'],
    ] as const) {
      const one = (port: number): Packet => ({ family, protocol, host: 1, port, fragment: 'none', tagged: false });
      const list = put(Array.from({ length: 255 }, (_, i) => one(i)));
      const flow = `${protocol}${family}` as const;
      steering.configure(TURNS, ALL);
      const sizes = steer(steering, list)
        .map((part) => part.length)
        .slice(0, STEER_ENTRIES);
      assert.ok(Math.max(...sizes) <= 40 && Math.min(...sizes) >= 3, `${flow}: ${sizes}`);
      const hosts = put(Array.from({ length: 255 }, (_, i) => ({ ...one(1), host: i })));
      const byHost = steer(steering, hosts)
        .map((part) => part.length)
        .slice(0, STEER_ENTRIES);
      assert.ok(Math.max(...byHost) <= 40 && Math.min(...byHost) >= 3, `${flow} by hosts: ${byHost}`);
      put(Array.from({ length: 255 }, (_, i) => one(i)));
      steering.configure(TURNS, { ...ALL, [flow]: 'L3' });
      assert.equal(steer(steering, list).filter((part) => part.length > 0).length, 1, `${flow} by addresses`);
    }
  } finally {
    steering.close();
  }
});

test('packets that are cut off anywhere go somewhere; tables that are none are refused', () => {
  const steering = new TransmitSteering(arena);
  try {
    steering.configure(TURNS, ALL);
    const packet: Packet = { family: 6, protocol: 'tcp', host: 1, port: 2, fragment: 'first', tagged: true };
    for (let cut = 0; cut <= bytesOf(packet).length; cut++) {
      const list = put([packet], cut);
      assert.deepEqual(steer(steering, list).flat(), list);
    }
    assert.throws(() => steering.configure([0, 1], ALL), /expected a table of 16 entries, got 2/);
    assert.throws(
      () =>
        steering.configure(
          TURNS.map((queue) => (queue === 3 ? 64 : queue)),
          ALL,
        ),
      /expected queues 0 to 63, got 64/,
    );
  } finally {
    steering.close();
  }
});
