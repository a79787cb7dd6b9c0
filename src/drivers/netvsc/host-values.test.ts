// What a host may say that is not so: suspicions 1 to 11 of reading DPDK's driver (facts/dpdk.md 2.13), and that ours does better.
// Each test is named by its number there.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { PortError } from '../../ethdev/errors.js';
import { type Answer, indication, packet, queryReply, words } from '../../netvsc/fake-host.js';
import { type FakeRig, fakeRig, frameTo, grantSubchannels } from './testing.js';

const CAFE = 0xcafe;

async function started(t: TestContext): Promise<FakeRig> {
  const rig = await fakeRig(t);
  await rig.start();
  return rig;
}

/** A transfer-page packet with these ranges, under that transaction id. */
function transfer(rig: FakeRig, id: number, ...ranges: [bytes: number, offset: number][]): void {
  const header = new Uint8Array(8 + ranges.length * 8);
  new DataView(header.buffer).setUint16(0, CAFE, true);
  header.set(words(ranges.length, ...ranges.flat()), 4);
  const nvsp = new Uint8Array(40);
  nvsp.set(words(107, 0, 0xffffffff, 0));
  rig.host.write(packet(7, 1, id, 0, padded(header), nvsp));
}
const padded = (bytes: Uint8Array) => {
  const out = new Uint8Array((bytes.length + 7) & ~7);
  out.set(bytes);
  return out;
};

/** The host puts a message into the receive buffer. */
function place(rig: FakeRig, offset: number, message: Uint8Array): void {
  rig.arena.u8.set(message, rig.bus.pairs[0]!.offer.receiveBuffer.address + offset);
}

/** An RNDIS packet message; `cells` replace words of its header by index. */
function rndisPacket(data: Uint8Array, infos: Uint8Array = new Uint8Array(0), cells: Record<number, number> = {}) {
  const bytes = 44 + infos.length + data.length;
  const message = new Uint8Array(bytes);
  message.set(words(1, bytes, 36 + infos.length, data.length, 0, 0, 0, infos.length ? 36 : 0, infos.length));
  message.set(infos, 44);
  message.set(data, 44 + infos.length);
  for (const [at, value] of Object.entries(cells)) message.set(words(value), Number(at) * 4);
  return message;
}

/** Packets that come at all after the host did its worst. */
async function stillReceives(rig: FakeRig): Promise<void> {
  const frame = frameTo(rig.port.mac, 100, 42);
  rig.host.frame(frame);
  const got: Uint8Array[] = [];
  await rig.until('a good frame comes', () => {
    got.push(...rig.frames());
    return got.length > 0;
  });
  assert.deepEqual(got, [frame]);
  assert.equal(rig.port.state, 'started');
  assert.equal(rig.pool.available, rig.pool.count);
}

/** Statuses of completions that the host got, by id. */
const completions = (rig: FakeRig) => new Map(rig.host.completed.map(({ id, status }) => [id, status]));

const answered = (rig: FakeRig, ...ids: number[]) => ids.every((id) => completions(rig).has(id));

async function refused(t: TestContext, message: RegExp, prepare: (rig: FakeRig) => void): Promise<void> {
  let rig!: FakeRig;
  await assert.rejects(
    fakeRig(t, {
      prepare: (made) => {
        rig = made;
        prepare(made);
      },
    }),
    (error: PortError) => {
      assert.ok(error instanceof PortError);
      assert.equal(error.code, 'EIO');
      assert.match(error.message, message);
      return true;
    },
  );
  // The next attempt may find a better host.
  rig.host.answers.clear();
  rig.host.alignmentFactor = 3;
  rig.host.sectionBytes = 6144;
  rig.host.suballocationBytes = 1806;
  await rig.probe();
  await rig.start();
  await stillReceives(rig);
}

test('1. ids of transfer-page packets index nothing: any of them works, a range at the very end of the buffer does not', async (t) => {
  const rig = await started(t);
  const sections = Math.floor((1 << 20) / rig.host.suballocationBytes);
  const frame = frameTo(rig.port.mac, 80, 1);
  const message = rndisPacket(frame);
  place(rig, 40_000, message);
  for (const id of [sections, sections + 1, 0x7fff_ffff, 0xffff_ffff]) transfer(rig, id, [message.length, 40_000]);
  const end = sections * rig.host.suballocationBytes;
  transfer(rig, 77, [message.length, end]);
  transfer(rig, 78, [1, end]);
  const got: Uint8Array[] = [];
  await rig.until('all are completed', () => {
    got.push(...rig.frames());
    return answered(rig, sections, sections + 1, 0x7fff_ffff, 0xffff_ffff, 77, 78);
  });
  assert.deepEqual(got, [frame, frame, frame, frame]);
  for (const id of [sections, sections + 1, 0x7fff_ffff, 0xffff_ffff]) assert.equal(completions(rig).get(id), 1);
  assert.deepEqual([completions(rig).get(77), completions(rig).get(78)], [2, 2]);
  assert.equal(rig.xstat('rx_q0_bad_ranges'), 2);
  await stillReceives(rig);
});

test('2. offset plus length of a range that wraps is refused, the other ranges of the packet are not', async (t) => {
  const rig = await started(t);
  const frame = frameTo(rig.port.mac, 80, 2);
  const message = rndisPacket(frame);
  place(rig, 50_000, message);
  transfer(rig, 505, [0x200, 0xffff_ff00], [message.length, 50_000], [0xffff_ffff, 2], [0, 0xffff_ffff]);
  const got: Uint8Array[] = [];
  await rig.until('it is completed', () => {
    got.push(...rig.frames());
    return answered(rig, 505);
  });
  assert.deepEqual(got, [frame]);
  assert.equal(rig.xstat('rx_q0_bad_ranges'), 3);
  await stillReceives(rig);
});

for (const [offset, length] of [
  [0xffff_fff0, 0x20],
  [0x7fff_0000, 4],
  [16, 0xffff_fffc],
  [0, 4],
] as const) {
  test(`3. data of a query's answer at offset 0x${offset.toString(16)}, ${length} bytes: refused by name`, (t) =>
    refused(t, /RNDIS query maximum frame size: the data of OID 0x10106 .* is not inside the answer/, ({ host }) => {
      host.answers.set('query 10106', (made, request) => {
        made.complete(request, words(108, 1));
        made.rndis(words(0x80000004, 28, request.requestId, 0, length, offset, 1500));
      });
    }));
}

test('4. lengths of a packet message that wrap or lead outside of it; infos may put their data where they say', async (t) => {
  const rig = await started(t);
  const frame = frameTo(rig.port.mac, 120, 4);
  const vlan = words(20, 6, 16, 0xdead, 0x1234); // data at 16, not at 12
  const bad: Uint8Array[] = [
    rndisPacket(frame, undefined, { 2: 0xffff_fff0, 3: 0x20 }), // data offset + length wraps
    rndisPacket(frame, undefined, { 3: 0xffff_ffff }),
    rndisPacket(frame, vlan, { 7: 0xffff_fff0 }), // info offset
    rndisPacket(frame, vlan, { 8: 0xffff_fff0 }), // info length
    rndisPacket(frame, vlan, { 7: 150 }), // beyond the message with its length
    rndisPacket(frame, words(20, 6, 24, 0, 0)), // data of the info behind it
    rndisPacket(frame, words(16, 6, 8, 0)), // and in front
  ];
  for (const [i, message] of bad.entries()) {
    place(rig, 60_000 + i * 2048, message);
    transfer(rig, 100 + i, [message.length, 60_000 + i * 2048]);
  }
  const good = rndisPacket(frame, vlan);
  place(rig, 90_000, good);
  transfer(rig, 99, [good.length, 90_000]);
  const got: number[] = [];
  await rig.until('all are completed', () => {
    got.push(...rig.receive());
    return answered(rig, 99, ...bad.map((_, i) => 100 + i));
  });
  assert.equal(got.length, 1);
  // The tag went back into the data, since stripping is not configured: 0x1234 is VLAN 0x123, DEI 0, priority 4.
  const tagged = rig.mbufs.read(got[0]!);
  assert.equal(Buffer.from(tagged).readUInt32BE(12), 0x8100_8123);
  assert.deepEqual(Buffer.concat([tagged.subarray(0, 12), tagged.subarray(16)]), Buffer.from(frame));
  rig.mbufs.free(got[0]!);
  assert.equal(rig.xstat('rx_q0_bad_rndis_messages') + rig.xstat('rx_q0_bad_packet_infos'), bad.length);
  await stillReceives(rig);
});

test('5. a per-packet info of size 0, or of no known type, ends or is skipped: no endless loop', async (t) => {
  const rig = await started(t);
  const frame = frameTo(rig.port.mac, 70, 5);
  const messages = [
    rndisPacket(frame, words(0, 0x77, 0, 0)),
    rndisPacket(frame, words(0, 0x77, 12, 0)),
    rndisPacket(frame, words(16, 0x77, 12, 0)), // unknown: skipped
  ];
  for (const [i, message] of messages.entries()) {
    place(rig, 60_000 + i * 2048, message);
    transfer(rig, 110 + i, [message.length, 60_000 + i * 2048]);
  }
  const got: Uint8Array[] = [];
  await rig.until('all are completed', () => {
    got.push(...rig.frames());
    return answered(rig, 110, 111, 112);
  });
  assert.deepEqual(got, [frame]);
  assert.equal(rig.xstat('rx_q0_bad_packet_infos'), 2);
  await stillReceives(rig);
});

test('6. an answer that is shorter than its structure is no answer', (t) =>
  refused(t, /RNDIS query link speed: query complete has 12 bytes, expected at least 24/, ({ host }) => {
    host.answers.set('query 10107', (made, request) => {
      made.complete(request, words(108, 1));
      made.rndis(words(0x80000004, 12, request.requestId));
    });
  }));

test('6. answers that nobody asked for change nothing', async (t) => {
  const rig = await fakeRig(t, {
    prepare: ({ host }) => {
      host.answers.set('query 1010101', (made, request, usual) => {
        made.rndis(queryReply(request.requestId + 50, Uint8Array.of(6, 6, 6, 6, 6, 6)));
        usual();
        made.rndis(queryReply(request.requestId, Uint8Array.of(9, 9, 9, 9, 9, 9)));
      });
    },
  });
  assert.equal(rig.port.mac, '00:15:5d:01:02:03');
  await rig.start();
  await stillReceives(rig);
});

for (const [what, oid] of [
  ['RSS capabilities', '10203'],
  ['maximum frame size', '10106'],
] as const) {
  test(`7. success without data, ${what}: refused, nothing is made up`, (t) =>
    refused(t, new RegExp(`RNDIS query ${what}: expected \\d+ bytes or more of OID 0x${oid}, got 0`), ({ host }) => {
      host.answers.set(`query ${oid}`, (made, request) => {
        made.complete(request, words(108, 1));
        made.rndis(words(0x80000004, 24, request.requestId, 0, 0, 0));
      });
    }));
}

test('8. an alignment beyond all alignments is refused', (t) =>
  refused(t, /RNDIS initialize: expected a packet alignment factor of 0\.\.7, got 33/, ({ host }) => {
    host.alignmentFactor = 33;
  }));

for (const [maxPackets, alignmentFactor] of [
  [0, 3],
  [0xffff_ffff, 7],
  [8, 7],
] as const) {
  test(`8. ${maxPackets} packets a message, alignment ${1 << alignmentFactor}: sections are not overrun`, async (t) => {
    const rig = await fakeRig(t, {
      devargs: 'tx_copybreak=9000',
      prepare: ({ host }) => {
        host.maxPackets = maxPackets;
        host.alignmentFactor = alignmentFactor;
      },
    });
    await rig.start();
    const frames = Array.from({ length: 60 }, (_, i) => frameTo('02:00:00:00:00:01', 61 + ((i * 97) % 1400), i));
    let at = 0;
    await rig.until('all are sent', () => {
      at += rig.send(frames.slice(at, at + 1).map((frame) => rig.mbuf(frame)));
      return at === frames.length;
    });
    await rig.until('all came', () => rig.host.frames.length >= frames.length);
    assert.deepEqual(rig.host.frames, frames);
  });
}

for (const [what, sectionBytes] of [
  ['larger than the buffer', 0x7fff_0000],
  ['of no bytes', 0],
] as const) {
  test(`9. send sections ${what}: refused`, (t) =>
    refused(t, /NVSP send buffer: expected sections of 68\.\.524288 bytes/, ({ host }) => {
      host.answers.set('nvsp 104', (made, request) => made.complete(request, words(105, 1, sectionBytes)));
    }));
}

test('9. more receive sections than the buffer holds: refused before anything is made for them', (t) =>
  refused(
    t,
    /NVSP receive buffer: expected sections within 1048576 bytes, got 4294967295 of 1806 bytes/,
    ({ host }) => {
      host.answers.set('nvsp 101', (made, request) =>
        made.complete(request, words(102, 1, 1, 0, 1806, 0xffff_ffff, 0xffff_ffff)),
      );
    },
  ));

for (const granted of [4, 64, 0xffff_ffff]) {
  test(`9. ${granted} subchannels where 3 were asked for: refused, the port goes on with one`, async (t) => {
    const rig = await fakeRig(t);
    rig.host.answers.set('nvsp 133', (host, request) => host.complete(request, words(133, 1, granted)));
    await assert.rejects(
      rig.run(rig.port.configure({ rxQueues: 4, txQueues: 4 })),
      new RegExp(`NVSP subchannels: expected at most 3, the host gave ${granted}`),
    );
    await rig.start();
    await stillReceives(rig);
    await rig.run(rig.port.stop());
    grantSubchannels(rig, 3);
    await rig.run(rig.port.configure({ rxQueues: 4, txQueues: 4 }));
  });
}

test('10. completions of nothing: any id, any length, any generation; each is counted', async (t) => {
  const rig = await started(t);
  rig.host.holdSends = true;
  const frame = frameTo('02:00:00:00:00:01', 700, 1);
  assert.equal(rig.send([rig.mbuf(frame)]), 1);
  await rig.until('it is there', () => rig.host.held.length === 1);
  const [{ low, high } = { low: 0, high: 0 }] = rig.host.held;
  for (const [idLow, idHigh] of [
    [0xffff_ffff, high],
    [low + 1, high],
    [(low + 0x10000) >>> 0, high],
    [low, 0],
    [0x1000_0000, 0xffff_8000], // as a pointer
  ] as const)
    rig.host.complete({ idLow, idHigh }, words(108, 1));
  rig.host.write(packet(11, 0, low, high, new Uint8Array(0), new Uint8Array(0)));
  rig.host.write(packet(11, 0, low, high, new Uint8Array(0), words(999, 1)));
  await rig.until('they are read', () => {
    rig.frames();
    return rig.xstat('tx_q0_unknown_completions') === 5;
  });
  assert.equal(rig.port.stats().opackets, 0);
  assert.equal(rig.pool.available, rig.pool.count - 1, 'the packet is still in flight');
  rig.host.releaseSends();
  await rig.until('it is completed', () => {
    rig.frames();
    return rig.port.stats().opackets === 1;
  });
  await stillReceives(rig);
});

test('10. indications whose buffers are not there', async (t) => {
  const rig = await started(t);
  const links: boolean[] = [];
  rig.port.on('link', ({ up }) => links.push(up));
  rig.host.rndis(words(7, 20, 0x40010013, 4, 0xffff_fff8));
  rig.host.rndis(words(7, 20, 0x40010013, 0xffff_ffff, 12));
  rig.host.rndis(words(7, 12, 0x4001000c));
  rig.host.rndis(indication(0x4001000c));
  await rig.until('the good one is heard', () => {
    rig.frames();
    return links.length > 0;
  });
  assert.deepEqual(links, [false]);
  assert.equal(rig.port.link().speedMbps, 10_000);
  await stillReceives(rig);
});

test('11. no answer to the first message: an error in time', { timeout: 60_000 }, (t) =>
  refused(t, /NVSP init 0x60001: no init complete from the host within \d+ ms/, ({ host }) => {
    host.answers.set('nvsp 1', () => {});
  }),
);

test('11. what else comes while an answer is waited for disturbs nobody', async (t) => {
  const noise: Answer = (host, _request, usual) => {
    host.inBand(words(128, 1, 42), 5, 0x80000000, true);
    host.inBand(words(134, 16, 12, ...new Array<number>(16).fill(0)));
    host.inBand(words(4711, 1, 2, 3));
    host.complete({ idLow: 9, idHigh: 0x4e540001 }, words(108, 1));
    host.frame(frameTo('00:15:5d:01:02:03', 60, 0));
    host.rndis(indication(0x4001000b));
    usual();
  };
  const rig = await fakeRig(t, {
    prepare: ({ host }) => {
      for (const name of ['nvsp 1', 'nvsp 101', 'nvsp 104', 'rndis 2', 'query fc01020d']) host.answers.set(name, noise);
    },
  });
  await rig.start();
  await stillReceives(rig);
});
