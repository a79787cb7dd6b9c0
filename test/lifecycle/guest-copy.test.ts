// Guests in processes of their own whose memory the host copies, and who die, or lose that memory, in the middle of it.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createDatapath } from '../../src/datapath/datapath.js';
import { Host } from '../../src/host/host.js';
import { openUplink, parseUplink } from '../../src/host/uplinks/index.js';
import { Arena } from '../../src/memory/arena.js';
import { linuxSystem } from '../../src/memory/os/mman.js';
import { openUioDevice } from '../../src/vmbus/uio/device.js';
import { Bystander } from '../peers-hostile/bystander.js';
import { type Line, machineName } from './processes.js';

const MESSAGES = 8;
const PATIENCE_MS = 20_000;
const LAST_PID = '/proc/sys/kernel/ns_last_pid';
const PEER = Uint8Array.of(2, 0, 0, 0xec, 0, 9);

class Child {
  readonly pid: number;
  readonly lines: Line[] = [];
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;

  constructor(t: TestContext, ...words: string[]) {
    const script = fileURLToPath(new URL('./anonymous-guest.js', import.meta.url));
    this.#child = spawn(process.execPath, [script, ...words], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.pid = this.#child.pid!;
    this.#ended = once(this.#child, 'exit');
    createInterface({ input: this.#child.stdout! }).on('line', (line) => this.lines.push(JSON.parse(line)));
    t.after(() => this.kill());
  }

  put(): void {
    this.#child.stdin!.write('put\n');
  }

  /** Steps the host until the child has said this. */
  async said(test: (line: Line) => boolean, step: () => void): Promise<Line> {
    const began = performance.now();
    for (;;) {
      const found = this.lines.find(test);
      if (found) return found;
      assert.equal(this.#child.exitCode, null, 'it ended');
      assert.ok(performance.now() - began < PATIENCE_MS, JSON.stringify(this.lines.slice(-3)));
      step();
      await new Promise(setImmediate);
    }
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }
}

async function start(t: TestContext) {
  const arena = Arena.create({ bytes: 256 << 20, system: linuxSystem });
  const datapath = createDatapath(arena.memory);
  const host = Host.create({
    ...{ arena, datapath, machine: machineName(), profile: 'ws2019', nics: [{}, {}] },
    uplinks: [(context) => openUplink(parseUplink('echo:10.0.0.1,02:00:00:ec:00:09'), context)],
  });
  t.after(() => host.close());
  const [nic, other] = [host.nics[0]!, host.nics[1]!];
  const step = () => {
    host.tick(performance.now());
    host.step();
  };
  const bystander = new Bystander(arena, datapath, openUioDevice(arena, host.path!, other.offer.uuid), PEER, step);
  await bystander.attach();
  const wellBystander = () => {
    bystander.send(16);
    bystander.check();
  };
  const end = () => bystander.close();
  return { arena, host, nic, step, wellBystander, end, words: [host.path!, nic.offer.uuid] as const };
}

/** A guest that has put messages into its ring, which the host has not read yet; others were read before. */
async function inTheMiddle(t: TestContext, { nic, step, words }: Awaited<ReturnType<typeof start>>): Promise<Child> {
  const guest = new Child(t, 'hold', ...words);
  await guest.said(({ type }) => type === 'attached', step);
  const good = nic.state().counters.txMessages!;
  guest.put();
  await guest.said(() => nic.state().counters.txMessages === good + MESSAGES, step);
  guest.lines.length = 0;
  guest.put();
  await guest.said(
    ({ type }) => type === 'put',
    () => {},
  );
  return guest;
}

test('a guest that is killed while its messages wait: they fail, the other NIC goes on, all comes back', async (t) => {
  const place = await start(t);
  const { arena, host, nic, step, wellBystander, end } = place;
  const before = arena.free();
  for (let round = 1; round <= 3; round++) {
    const guest = await inTheMiddle(t, place);
    await guest.kill();
    // Stepped, but not yet told that the guest is gone.
    host.step();
    const { guestPages, counters, phase } = nic.state();
    assert.deepEqual([phase, guestPages.refused], ['ready', MESSAGES * round], guestPages.lastRefusal);
    assert.equal(guestPages.lastRefusal, `memory of process ${guest.pid}: it is gone`);
    assert.deepEqual([counters.txMessages, counters.txFailed], [MESSAGES * round, MESSAGES * round]);
    wellBystander();
    step();
    assert.equal(nic.phase, 'closed');
    assert.deepEqual(arena.free(), before);
    wellBystander();
  }
  assert.equal(nic.state().deaths, 0);
  await end();
});

test('another process that got the number of a guest is not read in its place', {
  skip:
    (process.getuid?.() !== 0 || !existsSync(LAST_PID)) && 'needs root, and a kernel that says the last process number',
}, async (t) => {
  const place = await start(t);
  const { host, nic, wellBystander, end } = place;
  const guest = await inTheMiddle(t, place);
  await guest.kill();
  let found = false;
  for (let i = 0; i < 200 && !found; i++) {
    writeFileSync(LAST_PID, String(guest.pid - 1));
    const decoy = new Child(t, 'decoy');
    found = decoy.pid === guest.pid;
    if (found)
      await decoy.said(
        ({ type }) => type === 'decoy',
        () => {},
      );
    else await decoy.kill();
  }
  if (!found) {
    t.skip('other processes were faster each time');
    return;
  }
  const { txMessages } = nic.state().counters;
  host.step();
  const { guestPages, counters } = nic.state();
  assert.deepEqual([counters.txMessages, counters.txFailed, guestPages.refused], [txMessages, MESSAGES, MESSAGES]);
  assert.match(guestPages.lastRefusal!, /it is gone$/);
  wellBystander();
  await end();
});

test("pages that go and come under a guest's messages: the host counts, and serves on", async (t) => {
  const place = await start(t);
  const { nic, step, wellBystander, words, end } = place;
  const guest = new Child(t, 'churn', ...words);
  await guest.said(
    ({ good, failed }) => Number(good) > 500 && Number(failed) > 500,
    () => {
      for (let i = 0; i < 20; i++) step();
    },
  );
  const { guestPages, phase, deaths, counters } = nic.state();
  assert.deepEqual([phase, deaths], ['ready', 0]);
  assert.ok(guestPages.refused > 0 && guestPages.copiedBytes > 0, JSON.stringify(guestPages));
  // What is all zeros counts as a control message.
  assert.ok(counters.txMessages! > 100 && counters.txFailed! > 100, JSON.stringify(counters));
  wellBystander();
  await guest.kill();
  step();
  assert.equal(nic.phase, 'closed');
  wellBystander();
  await end();
});
