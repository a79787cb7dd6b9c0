// What is wrong in hv_netvsc by reading (facts/linux-guest.md 10.1) and how ours does better, by number: the data path. Control:
// linux-defects-control.test.ts; what shows at a port: src/drivers/netvsc/linux-defects.test.ts. D13 is XDP's.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MBUF } from '../memory/layout.js';
import { packet, rndisFrame, words } from './fake-host.js';
import { frame, grantQueues, type Rig, withRig } from './test-rig.js';

const TX_TRANSACTION = 0x4e540001;
const CONTROL_TRANSACTION = 0x4e540002;
/** A suballocation that frame() of the host does not use first. */
const SECTION = 100;

/** Status of each transfer-page packet that the guest has completed, by id, in order. */
const completions = (rig: Rig) =>
  rig.host.completed.filter(({ id }) => id >= 1000).map(({ id, status }) => [id, status]);

/** One range with this message. */
function deliver(rig: Rig, id: number, message: Uint8Array): void {
  rig.host.fill(SECTION, message);
  rig.host.ranges(id, [[message.length, SECTION * rig.host.suballocationBytes]]);
}

/** A poll that leaves the host alone. Returns what came. */
function pollAlone(rig: Rig, max = 64): number {
  const count = rig.netvsc.poll(rig.handles, max);
  rig.datapath.mbufFree(rig.handles, count);
  return count;
}

async function settle(rig: Rig): Promise<void> {
  for (let i = 0; i < 4; i++) await rig.turn();
}

test('D1: a per-packet info of size 0, beyond its end or too short for its kind ends the scan: counted, completed with FAIL, the next packet is fine', () =>
  withRig({}, async (rig) => {
    await rig.run(rig.netvsc.attach());
    const infos = [
      words(0, 0, 12, 0), // size 0
      words(0, 99, 12, 0), // the same of no known kind
      words(4, 6, 12, 0), // no whole header
      words(0xffffffff, 0, 12, 0),
      words(16, 0, 0xfffffffc, 0), // its data before it
      words(16, 0, 40, 0), // its data behind it
      words(12, 6, 12), // no room for a tag
      words(16, 6, 12, 0, 12), // half a header behind a good one
    ];
    for (const [i, list] of infos.entries()) {
      deliver(rig, 1000 + i, rndisFrame(frame(100, i), list));
      await settle(rig);
    }
    deliver(rig, 2000, rndisFrame(frame(100, 77)));
    await settle(rig);
    assert.deepEqual(rig.received, [frame(100, 77)]);
    assert.equal(rig.netvsc.stats().rxBadPpi, infos.length);
    assert.deepEqual(completions(rig), [...infos.map((_, i) => [1000 + i, 2]), [2000, 1]]);
  }));

test('D7: no receive completion is lost when neither ring nor list has room: the guest stops reading, and goes on', () =>
  withRig({ copyLimit: 0, bytes: { ring: 24 << 10 } }, async (rig) => {
    await rig.run(rig.netvsc.attach());
    await settle(rig);
    while (rig.send(frame(60, 1)) > 0) {} // the host reads nothing of it
    rig.host.holdSends = true; // later: it looks for no room
    const message = rndisFrame(frame(60, 2));
    rig.host.fill(SECTION, message);
    let sent = 0;
    let came = 0;
    for (let full = 0; full < 3; ) {
      const before = sent;
      while (rig.host.room > 200) {
        rig.host.ranges(1000 + sent++, [[message.length, SECTION * rig.host.suballocationBytes]]);
      }
      const count = pollAlone(rig);
      came += count;
      full = sent === before && count === 0 ? full + 1 : 0;
    }
    assert.ok(came > 1024 && came < sent, `stopped after ${came} of ${sent}`);
    assert.ok(rig.netvsc.stats().rxCompletionsDelayed! > 0);
    rig.received.length = 0;
    for (let i = 0; i < 200 && rig.host.completed.filter(({ id }) => id >= 1000).length < sent; i++) await rig.turn();
    assert.equal(came + rig.received.length, sent);
    assert.deepEqual(
      completions(rig),
      Array.from({ length: sent }, (_, i) => [1000 + i, 1]),
    );
  }));

test('D8: a send that the host fails is no sent packet, and what is wrong with a received one has a counter of its own', () =>
  withRig({}, async (rig) => {
    await rig.run(rig.netvsc.attach());
    rig.host.holdSends = true;
    assert.equal(rig.send(frame(60, 1), frame(60, 2)), 2);
    await rig.turn();
    const { low, high } = rig.host.held.shift()!;
    rig.host.complete({ idLow: low, idHigh: high }, words(108, 2));
    const good = rndisFrame(frame(60, 3));
    const bad = good.slice();
    bad.set(words(0xffff), 12); // data length
    deliver(rig, 1000, bad);
    await rig.turn();
    rig.host.ranges(1001, [[0xffff, 0]]);
    rig.host.ranges(1002, [[good.length, 0xfffffff0]]);
    rig.host.write(packet(7, 1, 1003, 0, words(0xbeef, 1, 100, 0), words(107, 0, 0, 0)));
    rig.host.write(packet(7, 1, 1004, 0, words(0xcafe, 1, 100, 0), words(1, 0, 0, 0)));
    await settle(rig);
    const { txFailed, txCompleted, rxBadRndis, rxBadRange, rxBadSet, rxBadNvsp, rxPackets } = rig.netvsc.stats();
    assert.deepEqual([txFailed, txCompleted], [2, 0], 'two packets in one message');
    assert.deepEqual([rxBadRndis, rxBadRange, rxBadSet, rxBadNvsp, rxPackets], [1, 2, 1, 1, 0]);
  }));

test('D12: every queue has send sections of its own: one that has none left takes none of another', () =>
  withRig({ queues: 2 }, async (rig) => {
    grantQueues(rig, 1);
    await rig.run(rig.netvsc.attach());
    await settle(rig);
    const free = rig.netvsc.queue(1)!.get('freeSectionCount');
    for (let i = 0; i < 200 && rig.netvsc.queue(0)!.get('freeSectionCount') > 0; i++) rig.send(frame(1400, i)); // never read
    rig.send(frame(1400, 1));
    assert.ok(rig.netvsc.queueStats(0).txNoSection! > 0);
    assert.equal(rig.netvsc.queue(1)!.get('freeSectionCount'), free);
    assert.equal(rig.sendOn(1, frame(1400, 1)), 1);
    const { txCopied, txNoSection } = rig.netvsc.queueStats(1);
    assert.deepEqual([txCopied, txNoSection], [1, 0]);
  }));

test('D19: packets in a section that cannot be sent now are kept: all that was taken arrives, once and in order', () =>
  withRig({ bytes: { ring: 24 << 10 } }, async (rig) => {
    await rig.run(rig.netvsc.attach());
    await settle(rig);
    rig.host.frames.length = 0;
    const taken: Uint8Array[] = [];
    for (let i = 0, refused = 0; refused < 5; i++) {
      const one = frame(60 + (i % 900), i);
      if (rig.send(one) === 1) taken.push(one);
      else refused++;
    }
    assert.ok(rig.netvsc.stats().ringFull! > 0);
    for (let i = 0; i < 50 && rig.host.frames.length < taken.length; i++) await rig.turn();
    await settle(rig);
    assert.deepEqual(rig.host.frames, taken);
    const { txCompleted, txOutstanding } = rig.netvsc.stats();
    assert.deepEqual([txCompleted, txOutstanding], [taken.length, 0]);
    assert.equal(rig.freeSmall(), 512);
  }));

test('D21: ids of one kind are never read as another: data, requests, control sends and no id at all', () =>
  withRig({}, async (rig) => {
    await rig.run(rig.netvsc.attach());
    rig.host.holdSends = true;
    rig.send(frame(60, 1));
    await rig.turn();
    const data = rig.host.held.shift()!;
    assert.equal(data.high, TX_TRANSACTION);
    const finish = (low: number, high: number, payload: Uint8Array) =>
      rig.host.write(packet(11, 0, low, high, new Uint8Array(0), payload));
    let asked = { idLow: 0, idHigh: 0 };
    rig.host.answers.set('set 1010e', (_host, request) => {
      asked = request;
    });
    const pending = rig.netvsc.setPacketFilter(1);
    await rig.turn();
    assert.equal(asked.idHigh, CONTROL_TRANSACTION);
    finish(data.low, data.high, new Uint8Array(0)); // an NVSP message, to Linux
    finish(data.low, data.high, words(2, 1, 34, 1));
    finish(asked.idLow, TX_TRANSACTION, words(108, 1)); // a request's id as a packet's
    finish(0, 0, words(108, 1)); // a control send's id, to Linux
    finish(0, CONTROL_TRANSACTION, words(2, 1, 34, 1));
    finish(data.low, CONTROL_TRANSACTION + 7, words(108, 1));
    await settle(rig);
    assert.equal(rig.netvsc.state, 'running');
    const { txOutstanding, txCompleted, requestsWaiting } = rig.netvsc.stats();
    assert.deepEqual([txOutstanding, txCompleted], [1, 0], 'the send still waits for its own');
    assert.ok(requestsWaiting! > 0);
    finish(data.low, data.high, words(108, 1));
    rig.host.complete(asked, words(108, 1));
    rig.host.answers.clear();
    await rig.turn();
    assert.equal(rig.netvsc.stats().txCompleted, 1);
    await assert.rejects(rig.run(pending), /RNDIS set packet filter: no set complete/, 'taken, never answered');
  }));

test('D22: a packet of which one part cannot be shown to the host leaves nothing behind: no half message, slot, section or buffer', () =>
  withRig({ copyLimit: 0 }, async (rig) => {
    rig.host.sectionBytes = 1100; // what cannot be shown does not fit into a section either
    await rig.run(rig.netvsc.attach());
    await settle(rig);
    const { u32 } = rig.arena;
    const cell = (mbuf: number, name: keyof typeof MBUF.at) => (mbuf + MBUF.at[name]) >>> 2;
    const queue = rig.netvsc.queue(0)!;
    const held = () => [queue.get('freeSlotCount'), queue.get('freeSectionCount'), queue.get('writeIndex')];
    const before = held();
    assert.equal(rig.datapath.poolGet(rig.small, rig.handles, 3), 3);
    const [first, second, third] = [...u32.subarray(rig.handles >>> 2, (rig.handles >>> 2) + 3)] as [
      number,
      number,
      number,
    ];
    for (const [i, mbuf] of [first, second, third].entries()) {
      u32[cell(mbuf, 'dataLength')] = 700;
      u32[cell(mbuf, 'next')] = [second, third, 0][i]!;
    }
    u32[cell(first, 'packetLength')] = 2100;
    u32[cell(third, 'data')] = queue.get('receiveBuffer'); // no packet memory
    queue.set('maxFrameBytes', 4000);
    assert.equal(rig.netvsc.send(rig.handles, 1), 1);
    assert.deepEqual(held(), before);
    assert.equal(rig.netvsc.stats().txTooBig, 1);
    assert.equal(rig.freeSmall(), 512);
    assert.equal(rig.send(frame(800, 1)), 1);
    await settle(rig);
    assert.deepEqual(rig.host.frames.at(-1), frame(800, 1));
    assert.deepEqual(held().slice(0, 2), before.slice(0, 2));
  }));

test('D23: a transfer-page packet that is refused at its header is completed with FAIL: the host gets its section back', () =>
  withRig({}, async (rig) => {
    await rig.run(rig.netvsc.attach());
    const good = words(107, 0, 0xffffffff, 0);
    const refused: [header: Uint8Array, payload: Uint8Array][] = [
      [words(0xbeef, 1, 100, 0), good],
      [words(0xcafe, 0), good],
      [words(0xcafe, 2, 100, 0), good],
      [words(0xcafe, 0xffffffff, 100, 0), good],
      [words(0xcafe, 1, 100, 0), words(108, 1)],
      [words(0xcafe, 1, 100, 0), new Uint8Array(0)],
    ];
    for (const [i, [header, payload]] of refused.entries()) rig.host.write(packet(7, 1, 1000 + i, 0, header, payload));
    await settle(rig);
    assert.deepEqual(
      completions(rig),
      refused.map((_, i) => [1000 + i, 2]),
    );
    assert.equal(rig.netvsc.state, 'running');
  }));

test('D24: a packet of many ranges is delivered in pieces of the budget, completed once, after its last', () =>
  withRig({}, async (rig) => {
    await rig.run(rig.netvsc.attach());
    const message = rndisFrame(frame(60, 1));
    const range = [message.length, SECTION * rig.host.suballocationBytes] as const;
    rig.host.fill(SECTION, message);
    rig.host.ranges(1000, new Array(100).fill(range));
    rig.host.ranges(1001, [range]);
    const pieces: number[] = [];
    for (let n = pollAlone(rig, 8); n > 0; n = pollAlone(rig, 8)) {
      pieces.push(n);
      rig.host.step();
      const done = pieces.reduce((sum, count) => sum + count);
      assert.deepEqual(completions(rig).length, done < 100 ? 0 : done === 101 ? 2 : 1, `after ${done}`);
    }
    assert.deepEqual(pieces, [...new Array(12).fill(8), 5]);
    assert.deepEqual(completions(rig), [
      [1000, 1],
      [1001, 1],
    ]);
    // A count that no host sends is refused, not gone through.
    rig.host.ranges(1002, new Array(1025).fill(range));
    await settle(rig);
    assert.deepEqual(completions(rig).at(-1), [1002, 2]);
  }));
