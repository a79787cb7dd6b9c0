// Peers that change messages while they are being read: no crash, no wrong byte anywhere else, and whatever is refused is
// refused by name.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { concat, words as rawWords } from '../../src/host/raw-guest-testing.js';
import type { Arena } from '../../src/memory/arena.js';
import { words } from '../../src/netvsc/fake-host.js';
import { transfer } from './host-rows.js';
import { createTwoDevices, message, SECTION_BYTES, sectionAt } from './two-devices.js';
import { createTwoNics, info, V61 } from './two-nics.js';

/** At least and at most so many rounds of 100 messages: until enough has happened, however the threads are scheduled. */
const ROUNDS = 30;
const ROUNDS_MOST = 2000;
const CHANGES = 10_000;

interface Region {
  readonly address: number;
  readonly words: Uint32Array;
}

interface Scribbler {
  during<T>(action: () => T): T;
  /** Words changed so far. */
  changed(): number;
}

async function startScribbler(t: TestContext, arena: Arena, regions: readonly Region[]): Promise<Scribbler> {
  const cells = new Int32Array(new SharedArrayBuffer(8));
  const { memory } = arena;
  const worker = new Worker(new URL('./scribbler.js', import.meta.url), { workerData: { memory, cells, regions } });
  worker.unref(); // a hook that throws keeps later ones from running
  const set = (value: number) => {
    Atomics.store(cells, 0, value);
    Atomics.notify(cells, 0);
  };
  t.after(async () => {
    set(2);
    await worker.terminate();
  });
  await once(worker, 'message');
  return {
    during(action) {
      set(1);
      try {
        return action();
      } finally {
        set(0);
      }
    },
    changed: () => Atomics.load(cells, 1),
  };
}

const region = (address: number, bytes: Uint8Array): Region => {
  const padded = new Uint8Array((bytes.length + 3) & ~3);
  padded.set(bytes);
  return { address, words: new Uint32Array(padded.buffer) };
};

test('a guest that changes its messages while the host reads them', async (t) => {
  const rig = await createTwoNics();
  t.after(() => rig.close());
  const { attacker, bystander, nic, arena, step } = rig;
  attacker.attach(V61);
  const infos = concat(info(0, 0x5 | (34 << 16)), info(6, 0x10), info(2, 100 | (34 << 20)));
  const good = attacker.message({ infos });
  const two = concat(good, attacker.message());
  const page = attacker.allocate(1);
  const section = attacker.opened.sendBuffer.address;
  arena.u8.set(two, section);
  arena.u8.set(good, page);
  // Headers and infos of the first message, the second one's header, and the same in a page of the guest's.
  const regions = [
    region(section, two.slice(0, 92)),
    region(section + good.length, two.slice(good.length, good.length + 44)),
    region(page, good.slice(0, 92)),
  ];
  const scribbler = await startScribbler(t, arena, regions);
  const pfn = Number(attacker.pair.device.memory.pfn(page));
  let completed = 0;
  const reasons = new Set<string>();
  const enough = () => scribbler.changed() > CHANGES && completed > 500 && reasons.size > 2;
  for (let round = 0; round < ROUNDS || !enough(); round++) {
    assert.ok(round < ROUNDS_MOST, `${scribbler.changed()} words, ${completed} messages, ${[...reasons].join()}`);
    bystander.send(8);
    scribbler.during(() => {
      for (let i = 0; i < 100 && nic.phase === 'ready'; i++) {
        if (i % 2 === 0) attacker.put(6, 1, 1n, rawWords(107, 0, 0, two.length));
        else attacker.put(9, 1, 2n, rawWords(107, 0, 0xffff_ffff, 0), rawWords(0, 1, good.length, 0, pfn, 0));
        step();
        for (let packet = attacker.take(); packet; packet = attacker.take()) {
          if (packet.type === 11) completed++;
          else attacker.put(11, 0, packet.id, rawWords(108, 1));
        }
      }
    });
    reasons.add(nic.state().lastFrameError);
    bystander.check();
    // A message type that changed makes it a control message, and most of these are deadly: that is its name then.
    if (nic.phase === 'ready') continue;
    assert.match(nic.state().reason!, /^RNDIS/);
    attacker.close();
    attacker.attach(V61);
    arena.u8.set(two, section);
  }
  attacker.close();
  attacker.forgetPages();
});

test('a host that changes its messages while the guest reads them', async (t) => {
  const rig = await createTwoDevices();
  t.after(() => rig.close());
  const { host, victim, bystander, arena } = rig;
  await rig.run(victim.nic.device.attach());
  const infos = words(16, 0, 12, 0x28, 16, 6, 12, 0x10, 16, 8, 12, 77);
  const good = message({ infos });
  const coalesced = message({ infos: words(16, 0x8000_0001, 12, 1 | (3 << 8), 16, 6, 12, 0x10) });
  const at = [sectionAt(0), sectionAt(1)] as const;
  host.place(at[0], good);
  host.place(at[1], coalesced);
  const base = host.offer.receiveBuffer.address;
  assert.ok((base + at[0]) % 4 === 0 && SECTION_BYTES % 2 === 0);
  const regions = [region(base + at[0], good.slice(0, 92))];
  const scribbler = await startScribbler(t, arena, regions);
  const enough = () => {
    const { rxPackets, rxBadRndis, rxBadPpi } = victim.nic.device.stats();
    return scribbler.changed() > CHANGES && rxPackets! > 1000 && rxBadRndis! > 0 && rxBadPpi! > 0;
  };
  for (let round = 0; round < ROUNDS || !enough(); round++) {
    assert.ok(round < ROUNDS_MOST, JSON.stringify(victim.nic.device.stats()));
    bystander.send(8);
    scribbler.during(() => {
      for (let i = 0; i < 100 && victim.nic.device.state === 'running'; i++) {
        host.write(
          transfer([
            [good.length, at[0]],
            [coalesced.length, at[1]],
            [good.length, at[0]],
          ]),
        );
        victim.poll();
        host.step();
      }
    });
    await rig.turn();
    bystander.check();
    assert.equal(victim.nic.device.state, 'running', victim.nic.device.failure);
    host.completed.length = 0;
    victim.received.length = 0;
  }
  await rig.run(victim.nic.device.detach());
  victim.checkBuffers();
});
