// DPDK with huge pages, as it is meant to be run: memory that the host may not map (it can go missing by holes), so all that
// is not small is copied out of the process.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { runEnvironment } from '../../src/apps/run/run.js';
import { createDatapath } from '../../src/datapath/datapath.js';
import { PollLoop } from '../../src/ethdev/loop.js';
import { Host } from '../../src/host/host.js';
import { nicMac } from '../../src/host/identity.js';
import type { Nic } from '../../src/host/nic.js';
import { openUplink, parseUplink } from '../../src/host/uplinks/index.js';
import { Arena } from '../../src/memory/arena.js';
import { linuxSystem } from '../../src/memory/os/mman.js';
import { openUioDevice } from '../../src/vmbus/uio/device.js';
import { parseMac } from '../../src/wire/address-text.js';
import { machineName } from '../lifecycle/processes.js';
import { Bystander } from '../peers-hostile/bystander.js';
import { buildPmd, noDpdkBuild } from './dpdk.js';

const POOL = '/proc/sys/vm/nr_hugepages';
/** Pages of 2 MiB that DPDK gets, and some more for its alignments. */
const PAGES = 96;
const MEMORY_MB = 128;
const ROUNDS = 40;
const STATION = '02:00:00:ec:00:09';
const PATIENCE_MS = 60_000;

function notHere(): string | false {
  const missing = noDpdkBuild();
  if (missing) return missing;
  if (process.getuid?.() !== 0) return 'needs root, for huge pages';
  return !existsSync(POOL) && 'this kernel has no huge pages';
}

/** Adds huge pages to the system's, until the test ends; others may do the same. False = there is no memory for them. */
function borrowPages(t: TestContext): boolean {
  const pages = () => Number(readFileSync(POOL, 'utf8'));
  const before = pages();
  writeFileSync(POOL, String(before + PAGES));
  const got = pages() - before;
  t.after(() => writeFileSync(POOL, String(Math.max(pages() - got, 0))));
  return got >= PAGES;
}

interface Place {
  readonly arena: Arena;
  readonly host: Host;
  readonly machine: string;
  readonly bystander: Bystander;
}

/** A host with two NICs; the second one has a guest of ours, whose peer is the first one's, or an echo station. */
async function start(t: TestContext, peer: 'guest' | 'station'): Promise<Place> {
  const arena = Arena.create({ bytes: 768 << 20, system: linuxSystem });
  const datapath = createDatapath(arena.memory);
  const machine = machineName();
  const host = Host.create({
    ...{ arena, datapath, machine, profile: 'ws2019', nics: [{}, {}] },
    uplinks: [(context) => openUplink(parseUplink(`echo:10.0.0.1,${STATION}`), context)],
  });
  const loop = new PollLoop();
  loop.add(host);
  loop.start();
  t.after(async () => {
    await loop.stop();
    loop.close();
    host.close();
  });
  const step = () => {
    host.tick(performance.now());
    host.step();
  };
  const device = openUioDevice(arena, host.path!, host.nics[1]!.offer.uuid);
  const bystander = new Bystander(
    arena,
    datapath,
    device,
    peer === 'guest' ? nicMac(machine, 0) : parseMac(STATION)!,
    step,
  );
  await bystander.attach();
  return { arena, host, machine, bystander };
}

/** test/peers/reflect.c on the first NIC, in a mount namespace of its own with a hugetlbfs. */
class Mirror {
  readonly #child: ChildProcess;
  readonly #folder = mkdtempSync(path.join(tmpdir(), 'netvsc-huge-'));
  readonly #ended: Promise<unknown>;

  constructor(t: TestContext, machine: string, memory: 'in-memory' | 'files', words: readonly string[] = []) {
    const file = openSync(`${this.#folder}/output`, 'w');
    const huge = `${this.#folder}/huge`;
    const files = ['--huge-dir', huge, '--huge-unlink', '--no-shconf', `--file-prefix=${machine}`];
    const eal = [...(memory === 'files' ? files : ['--in-memory']), '--no-pci', '--no-telemetry'];
    const mount = `mkdir ${huge} && mount -t hugetlbfs none ${huge} && exec "$@"`;
    const command = [buildPmd('test/peers/reflect.c'), ...eal, '-m', String(MEMORY_MB), '-l', '0', '--', ...words];
    this.#child = spawn('unshare', ['-m', '--propagation', 'private', 'sh', '-c', mount, 'sh', ...command], {
      stdio: ['ignore', file, file],
      env: runEnvironment(machine),
    });
    closeSync(file);
    this.#ended = once(this.#child, 'exit');
    t.after(async () => {
      await this.kill();
      rmSync(this.#folder, { recursive: true, force: true });
    });
  }

  /** Resolves once `done`; fails when it ends before that. */
  async until(done: () => boolean): Promise<void> {
    const began = performance.now();
    while (!done()) {
      assert.ok(this.alive, `it ended:\n${this.output}`);
      assert.ok(performance.now() - began < PATIENCE_MS, `it never came to that:\n${this.output}`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  get output(): string {
    return readFileSync(`${this.#folder}/output`, 'utf8');
  }

  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async kill(): Promise<void> {
    if (this.alive) this.#child.kill('SIGKILL');
    await this.#ended;
  }
}

async function closed(nic: Nic): Promise<void> {
  const began = performance.now();
  while (nic.phase !== 'closed') {
    assert.ok(performance.now() - began < PATIENCE_MS, nic.phase);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Everything that the bystander sent came back, unchanged. */
function allBack(bystander: Bystander): boolean {
  try {
    bystander.check();
    return true;
  } catch (error) {
    if (!/did not come back/.test((error as Error).message)) throw error;
    return false;
  }
}

for (const memory of ['in-memory', 'files'] as const) {
  test(`huge pages, ${memory}: DPDK sends back what it got, out of memory that is copied`, {
    skip: notHere(),
  }, async (t) => {
    if (!borrowPages(t)) {
      t.skip(`no memory for ${PAGES} huge pages`);
      return;
    }
    const place = await start(t, 'guest');
    const nic = place.host.nics[0]!;
    const mirror = new Mirror(t, place.machine, memory);
    await mirror.until(() => mirror.output.includes('started'));
    for (let i = 0; i < ROUNDS; i++) {
      place.bystander.send(32);
      await mirror.until(() => allBack(place.bystander));
    }
    const { guestPages, deaths, counters } = nic.state();
    assert.deepEqual([deaths, guestPages.refused], [0, 0], guestPages.lastRefusal);
    assert.ok(counters.txDirect! > 400, `${counters.txDirect} messages by page numbers`);
    assert.ok(guestPages.copiedBytes > counters.txDirect! * 590, JSON.stringify(guestPages));
    assert.equal(counters.txFailed, 0);
    assert.match(
      guestPages.copiedBecause!,
      /huge pages|not sealed against shrinking|anonymous memory|cannot be opened/,
    );
    t.diagnostic(JSON.stringify({ ...guestPages, messages: counters.txDirect }));
    await mirror.kill();
    await closed(nic);
    await place.bystander.close();
  });
}

test('huge pages: killed while the host copies, three times; everything comes back', {
  skip: notHere(),
}, async (t) => {
  if (!borrowPages(t)) {
    t.skip(`no memory for ${PAGES} huge pages`);
    return;
  }
  const { arena, host, machine, bystander } = await start(t, 'station');
  const nic = host.nics[0]!;
  const before = { regions: arena.regions().map(({ name }) => name), free: arena.free() };
  for (let i = 0; i < 3; i++) {
    const copied = nic.state().guestPages.copiedBytes;
    const mirror = new Mirror(t, machine, 'in-memory', [STATION, '1400']);
    await mirror.until(() => nic.state().guestPages.copiedBytes > copied + (10 << 20));
    bystander.send(16);
    await mirror.until(() => allBack(bystander));
    await mirror.kill();
    await closed(nic);
    bystander.send(16);
    bystander.check();
    assert.equal(nic.state().deaths, 0);
    assert.deepEqual({ regions: arena.regions().map(({ name }) => name), free: arena.free() }, before);
  }
  await bystander.close();
});
