import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PACKET_FLAG } from '../memory/layout.js';
import { type FrameSpec, layFrames, macBytes, RecordingPort, testMemory } from './frames-testing.js';
import { PORT_FILTER, UPLINK_FILTER, type VlanMode } from './ports.js';
import { VirtualSwitch } from './vswitch.js';

const BROADCAST = 'ff:ff:ff:ff:ff:ff';
const MULTICAST = '01:00:5e:00:00:fb';
const A = '00:15:5d:00:00:0a';
const B = '00:15:5d:00:00:0b';
const FAR = '02:00:00:00:00:01';
const FAR2 = '02:00:00:00:00:02';
const NIC_FILTER = PORT_FILTER.DIRECTED | PORT_FILTER.ALL_MULTICAST | PORT_FILTER.BROADCAST;

/** Two NICs (1 with A, 2 with B) and two uplinks (3, 4). */
function fixture(macCapacity = 64) {
  const { arena, datapath } = testMemory();
  const vswitch = new VirtualSwitch({ arena, datapath, macCapacity });
  const ports = [1, 2, 3, 4].map(
    (n) => new RecordingPort(arena, n, n < 3 ? 'nic' : 'tap', n < 3 ? NIC_FILTER : UPLINK_FILTER),
  );
  ports[0]!.macs = [macBytes(A)];
  ports[1]!.macs = [macBytes(B)];
  for (const port of ports) vswitch.addPort(port);
  const send = (...specs: FrameSpec[]) => {
    const table = layFrames(arena, specs);
    vswitch.forward(table, specs.length);
    arena.release(table);
  };
  /** Port numbers that got something since the last call. */
  const receivers = () => ports.filter((p) => p.take().length > 0).map((p) => p.number);
  return { arena, vswitch, ports, send, receivers, port: (n: number) => ports[n - 1]! };
}

function frame(
  source: number,
  to: string,
  from: string,
  extra: Partial<FrameSpec> & { type?: number; length?: number } = {},
) {
  const { type = 0x0800, length = 60, ...rest } = extra;
  const bytes = new Uint8Array(length);
  bytes.set(macBytes(to), 0);
  bytes.set(macBytes(from), 6);
  bytes[12] = type >>> 8;
  bytes[13] = type & 0xff;
  for (let i = 14; i < length; i++) bytes[i] = i * 7;
  return { source, bytes, ...rest } satisfies FrameSpec;
}

describe('where frames go', () => {
  const cases: [string, FrameSpec, number[]][] = [
    ["to a NIC's own address, before anything is learned", frame(1, B, A), [2]],
    ['broadcast', frame(1, BROADCAST, A), [2, 3, 4]],
    ['multicast', frame(3, MULTICAST, FAR), [1, 2, 4]],
    ['unknown unicast, to the ways out only', frame(1, FAR, A), [3, 4]],
    ['to oneself, nowhere', frame(1, A, A), []],
    ['from a port that is not there', frame(9, B, A), []],
    ['from a port number that cannot be', frame(0xffffffff, B, A), []],
    ['from a group address: forwarded, not learned', frame(3, B, MULTICAST), [2]],
  ];
  for (const [name, spec, expected] of cases) {
    test(name, () => {
      const f = fixture();
      f.send(spec);
      assert.deepEqual(f.receivers(), expected);
    });
  }

  test('a station is learned, found there, and followed when it moves', () => {
    const f = fixture();
    f.send(frame(3, BROADCAST, FAR));
    f.receivers();
    f.send(frame(1, FAR, A));
    assert.deepEqual(f.receivers(), [3]);
    f.send(frame(4, BROADCAST, FAR));
    f.receivers();
    f.send(frame(1, FAR, A), frame(3, FAR, FAR2));
    assert.deepEqual(f.receivers(), [4]);
    const { learned, moved } = f.vswitch.counters();
    assert.deepEqual([learned, moved], [2, 1]);
    assert.deepEqual(
      f.vswitch
        .table()
        .filter((s) => s.vlan !== undefined)
        .map((s) => [s.mac, s.portName])
        .sort(),
      [
        [FAR, 'tap4'],
        [FAR2, 'tap3'],
      ],
    );
  });

  test('a frame whose destination lies behind its source is dropped and counted', () => {
    const f = fixture();
    f.send(frame(3, BROADCAST, FAR), frame(3, FAR, FAR2));
    assert.equal(f.vswitch.portCounters(f.port(3)).inDropReturn, 1);
  });

  test('nobody can take over the own address of another port', () => {
    const f = fixture();
    f.send(frame(1, BROADCAST, B), frame(3, BROADCAST, B));
    assert.deepEqual(f.receivers(), []);
    assert.equal(f.vswitch.portCounters(f.port(1)).inDropSpoofed, 1);
    f.send(frame(1, B, A));
    assert.deepEqual(f.receivers(), [2]);
    const third = new RecordingPort(f.arena, 5, 'nic', NIC_FILTER);
    third.macs = [macBytes(B)];
    assert.throws(() => f.vswitch.addPort(third), /nic5: address 00:15:5d:00:00:0b belongs to nic2/);
    assert.equal(f.vswitch.freeNumber(), 5);
  });

  test('an address that changes takes effect with the next burst', () => {
    const f = fixture();
    f.port(2).macs = [macBytes(FAR2)];
    f.send(frame(1, FAR2, A), frame(1, B, A));
    assert.deepEqual(
      f.ports.map((p) => p.take().length),
      [0, 1, 1, 1],
    );
  });

  test('an address that another port has is not given away in service', () => {
    const f = fixture();
    f.port(1).macs = [macBytes(B), Uint8Array.of(1, 2, 3)];
    f.send(frame(3, B, FAR), frame(3, A, FAR));
    assert.deepEqual(
      f.ports.map((p) => p.take().length),
      [0, 1, 0, 1],
    );
    assert.equal(f.vswitch.counters().badAddresses, 1);
  });

  test('a silent station is forgotten after 300 s, a removed port takes its stations along', () => {
    const f = fixture();
    f.vswitch.tick(1_000);
    f.send(frame(3, BROADCAST, FAR));
    f.vswitch.tick(301_000);
    f.receivers();
    f.send(frame(1, FAR, A));
    assert.deepEqual(f.receivers(), [3]);
    f.vswitch.tick(302_000);
    f.send(frame(1, FAR, A));
    assert.deepEqual(f.receivers(), [3, 4]);
    assert.equal(f.vswitch.counters().aged, 1);
    f.send(frame(3, BROADCAST, FAR));
    f.vswitch.removePort(f.port(3));
    f.receivers();
    f.send(frame(1, FAR, A));
    assert.deepEqual(f.receivers(), [4]);
  });

  test('a full station table is counted, and such stations are flooded', () => {
    const f = fixture(5);
    for (let i = 1; i <= 5; i++) f.send(frame(3, BROADCAST, `02:00:00:00:01:0${i}`));
    assert.deepEqual([f.vswitch.counters().learned, f.vswitch.counters().tableFull], [3, 2]);
    f.receivers();
    f.send(frame(1, '02:00:00:00:01:05', A));
    assert.deepEqual(f.receivers(), [3, 4]);
  });

  test('order is kept and each port is called once a burst, also beyond one round', () => {
    const f = fixture();
    f.send(...Array.from({ length: 1000 }, (_, i) => frame(1, i % 3 ? B : BROADCAST, A, { length: 60 + (i % 500) })));
    const lengths = Array.from({ length: 1000 }, (_, i) => 60 + (i % 500));
    assert.deepEqual(
      f
        .port(2)
        .take()
        .map((s) => s.bytes.length),
      lengths,
    );
    assert.deepEqual(
      f
        .port(3)
        .take()
        .map((s) => s.bytes.length),
      lengths.filter((_, i) => i % 3 === 0),
    );
    assert.equal(f.port(2).deliveries, 4); // rounds of 256
    f.send(frame(1, B, A), frame(1, B, A));
    assert.equal(f.port(2).deliveries, 5);
  });
});

describe('packet filter and link', () => {
  const P = PORT_FILTER;
  const cases: [string, number, string, string, boolean][] = [
    ['nothing', 0, B, 'outDropFilter', false],
    ['nothing, broadcast', 0, BROADCAST, '', false],
    ['directed only', P.DIRECTED, B, '', true],
    ['directed only, broadcast', P.DIRECTED, BROADCAST, '', false],
    ['directed only, unknown unicast', P.DIRECTED, FAR, '', false],
    ['broadcast only', P.BROADCAST, BROADCAST, '', true],
    ['broadcast only, directed', P.BROADCAST, B, 'outDropFilter', false],
    ['multicast', P.MULTICAST, MULTICAST, '', true],
    ['all multicast', P.ALL_MULTICAST, MULTICAST, '', true],
    ['multicast is not broadcast', P.ALL_MULTICAST, BROADCAST, '', false],
    ['promiscuous, directed', P.PROMISCUOUS, B, '', true],
    ['promiscuous, multicast', P.PROMISCUOUS, MULTICAST, '', true],
    ['promiscuous, unknown unicast', P.PROMISCUOUS, FAR, '', true],
    ['a guest cannot ask for unknown unicast alone', P.UNKNOWN, FAR, '', false],
  ];
  for (const [name, filter, to, counter, expected] of cases) {
    test(name, () => {
      const f = fixture();
      f.port(2).filter = filter;
      f.send(frame(1, to, A));
      assert.equal(f.receivers().includes(2), expected);
      if (counter) assert.equal(f.vswitch.portCounters(f.port(2))[counter as 'outDropFilter'], 1);
    });
  }

  test("promiscuous ports see other ports' unicast in their VLAN, once, and not their own", () => {
    const f = fixture();
    f.port(4).filter |= P.PROMISCUOUS;
    f.send(frame(1, B, A));
    assert.deepEqual(f.receivers(), [2, 4]);
    f.port(4).vlan = { mode: 'access', vlan: 9 };
    f.send(frame(1, B, A));
    assert.deepEqual(f.receivers(), [2]);
    f.port(1).filter |= P.PROMISCUOUS;
    f.send(frame(1, B, A), frame(2, A, B));
    assert.deepEqual(
      f.ports.map((p) => p.take().length),
      [1, 1, 0, 0],
    );
  });

  test('a port whose link is down neither gets nor sends', () => {
    const f = fixture();
    f.port(2).linkUp = false;
    f.send(frame(1, B, A), frame(1, BROADCAST, A), frame(2, A, B));
    assert.deepEqual(f.receivers(), [3, 4]);
    const { outDropLinkDown, inDropLinkDown } = f.vswitch.portCounters(f.port(2));
    assert.deepEqual([outDropLinkDown, inDropLinkDown], [1, 1]);
  });

  test('a flood that nobody takes is counted', () => {
    const f = fixture();
    for (const n of [2, 3, 4]) f.port(n).linkUp = false;
    f.send(frame(1, BROADCAST, A));
    assert.equal(f.vswitch.portCounters(f.port(1)).inDropNoReceiver, 1);
  });
});

describe('MTU', () => {
  const TSO = PACKET_FLAG.TX_TSO;
  const cases: [string, Partial<FrameSpec> & { length: number }, boolean][] = [
    ['exactly the MTU', { length: 1514 }, true],
    ['one byte more', { length: 1515 }, false],
    ['one byte more behind a tag in its cell', { length: 1514, tci: 5 }, true],
    ['TSO', { length: 40_000, flags: TSO, mss: 1460, l4Offset: 34 }, true],
    ['TSO whose segments are too long', { length: 40_000, flags: TSO, mss: 1461, l4Offset: 34 }, false],
  ];
  for (const [name, extra, expected] of cases) {
    test(name, () => {
      const f = fixture();
      f.port(3).mtu = 9000;
      f.send(frame(1, B, A, extra));
      assert.equal(f.receivers().includes(2), expected);
      assert.equal(f.vswitch.portCounters(f.port(2)).outDropTooLong, expected ? 0 : 1);
    });
  }
  test('is each destination’s own', () => {
    const f = fixture();
    f.port(3).mtu = 9000;
    f.send(frame(1, BROADCAST, A, { length: 2000 }));
    assert.deepEqual(f.receivers(), [3]);
  });
});

describe('VLANs', () => {
  const trunk = (native = 0, ...allowed: number[]): VlanMode =>
    allowed.length ? { mode: 'trunk', native, allowed: new Set(allowed) } : { mode: 'trunk', native };
  const access = (vlan: number): VlanMode => ({ mode: 'access', vlan });
  /** Source mode, tag sent, destination mode, tag that arrives ('none' = not delivered). */
  const cases: [VlanMode, number | undefined, VlanMode, number | undefined | 'none'][] = [
    [trunk(), undefined, trunk(), undefined],
    [trunk(), 100, trunk(), 100],
    [trunk(), 0xe064, trunk(), 0xe064], // priority and DEI pass
    [trunk(), 0xe000, trunk(), 0xe000], // priority tag
    [trunk(), 0xfff, trunk(), 'none'], // reserved id
    [trunk(0, 100), 101, trunk(), 'none'],
    [trunk(), 101, trunk(0, 100), 'none'],
    [trunk(), 100, access(100), undefined],
    [trunk(), 0xe064, access(100), undefined],
    [trunk(), 101, access(100), 'none'],
    [trunk(), undefined, access(100), 'none'],
    [access(100), undefined, trunk(), 100],
    [access(100), 0xe000, trunk(), 0xe064],
    [access(100), undefined, access(100), undefined],
    [access(100), 0xe000, access(100), undefined],
    [access(100), 100, access(100), 'none'], // a tagged frame on an access port
    [access(100), undefined, access(0), 'none'],
    [access(0), undefined, trunk(), undefined],
    [access(0), 0x2000, access(0), 0x2000],
    [trunk(7), undefined, trunk(), 7],
    [trunk(7), 7, trunk(7), undefined],
    [trunk(7), 8, trunk(7), 8],
    [trunk(), 7, trunk(7), undefined],
    [trunk(), undefined, trunk(7), 'none'],
    [trunk(7), 0xe000, trunk(), 0xe007],
    [trunk(), 9, trunk(7, 8), 'none'],
    [trunk(), 8, trunk(7, 8), 8],
  ];
  const text = (v: VlanMode) =>
    v.mode === 'access' ? `access ${v.vlan}` : `trunk ${v.native} ${[...(v.allowed ?? [])]}`;
  for (const inline of [false, true]) {
    for (const [from, tag, to, expected] of cases) {
      if (inline && tag === undefined) continue;
      test(`${text(from)}, tag ${tag} ${inline ? 'in the bytes' : 'in the cell'} > ${text(to)}`, () => {
        const f = fixture();
        f.port(1).vlan = from;
        f.port(2).vlan = to;
        const plain = frame(1, B, A, { length: 400 });
        const spec = inline ? { ...plain, bytes: tagged(plain.bytes, tag!), cuts: [13, 15, 200, 300] } : plain;
        f.send(inline || tag === undefined ? spec : { ...spec, tci: tag });
        const seen = f.port(2).take();
        if (expected === 'none') return assert.equal(seen.length, 0);
        assert.equal(seen.length, 1);
        assert.equal(seen[0]!.tci, expected);
        assert.deepEqual(seen[0]!.bytes, plain.bytes);
      });
    }
  }

  test('one frame leaves tagged here and untagged there', () => {
    const f = fixture();
    f.port(1).vlan = access(100);
    f.port(2).vlan = access(100);
    f.port(4).vlan = access(5);
    f.send(frame(1, BROADCAST, A), frame(1, BROADCAST, A, { tci: 0x4000 }));
    assert.deepEqual(
      f
        .port(2)
        .take()
        .map((s) => s.tci),
      [undefined, undefined],
    );
    assert.deepEqual(
      f
        .port(3)
        .take()
        .map((s) => s.tci),
      [100, 0x4064],
    );
    assert.deepEqual(f.port(4).take(), []);
  });

  test('a tag that the frame is too short for is refused', () => {
    const f = fixture();
    f.send(frame(1, B, A, { type: 0x8100, length: 14 }), frame(1, B, A, { type: 0x8100, length: 17 }));
    assert.deepEqual(f.receivers(), []);
    assert.equal(f.vswitch.portCounters(f.port(1)).inDropShortTag, 2);
  });

  test('the station of a VLAN is not the station of another', () => {
    const f = fixture();
    f.send(frame(3, BROADCAST, FAR, { tci: 5 }), frame(4, BROADCAST, FAR, { tci: 6 }));
    f.receivers();
    f.send(frame(1, FAR, A, { tci: 5 }));
    assert.deepEqual(f.receivers(), [3]);
    f.send(frame(1, FAR, A, { tci: 6 }));
    assert.deepEqual(f.receivers(), [4]);
    f.send(frame(1, FAR, A));
    assert.deepEqual(f.receivers(), [3, 4]);
  });

  test('an own address counts only where its port carries the VLAN', () => {
    const f = fixture();
    f.port(2).vlan = access(10);
    f.send(frame(3, BROADCAST, B, { tci: 20 }));
    f.receivers();
    f.send(frame(1, B, A, { tci: 20 }));
    assert.deepEqual(f.receivers(), [3]);
    f.send(frame(1, B, A, { tci: 10 }));
    assert.deepEqual(f.receivers(), [2]);
  });

  test('more tags than the scratch memory holds cost rounds, not frames', () => {
    const f = fixture();
    f.port(1).vlan = access(100);
    f.send(...Array.from({ length: 900 }, (_, i) => frame(1, B, A, { length: 60 + i })));
    f.send(
      ...Array.from({ length: 300 }, () => {
        const plain = frame(3, A, FAR, { length: 300 });
        return { ...plain, bytes: tagged(plain.bytes, 100), cuts: [20, 40, 60, 80, 100, 120, 140, 160, 180] };
      }),
    );
    assert.deepEqual(
      f
        .port(2)
        .take()
        .map((s) => [s.bytes.length, s.tci]),
      Array.from({ length: 900 }, (_, i) => [60 + i, 100]),
    );
    assert.equal(f.port(1).take().length, 300);
    assert.equal(f.vswitch.counters().retagged >= 1200, true);
  });

  test('ids out of range are refused by name, or carry nothing when assigned later', () => {
    const f = fixture();
    const bad = new RecordingPort(f.arena, 5, 'tap', UPLINK_FILTER);
    bad.vlan = access(4095);
    assert.throws(() => f.vswitch.addPort(bad), /tap5: expected VLAN ids of 0 \(untagged\) to 4094, got 4095/);
    f.port(2).vlan = trunk(-1);
    f.send(frame(1, BROADCAST, A));
    assert.deepEqual(f.receivers(), [3, 4]);
  });
});

function tagged(bytes: Uint8Array, tci: number): Uint8Array {
  return Uint8Array.from([...bytes.subarray(0, 12), 0x81, 0, tci >>> 8, tci & 0xff, ...bytes.subarray(12)]);
}
