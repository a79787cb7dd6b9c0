// A guest whose memory is anonymous, at an address that its tests know: `node anonymous-guest.js ROLE ROOT UUID`. Roles:
//   hold    attaches, and on each line "put" on its standard input writes MESSAGES messages into the ring, telling nobody
//   churn   attaches and sends, while a thread unmaps, hides and replaces the pages under the messages
//   decoy   is no guest: it has other bytes at the same address
// Prints lines of JSON.
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { isMainThread, Worker } from 'node:worker_threads';
import { packet } from '../../src/host/raw-frames-testing.js';
import { concat, hexBytes, RawGuest } from '../../src/host/raw-guest-testing.js';
import { Arena } from '../../src/memory/arena.js';
import { viewOf } from '../../src/memory/os/libc.js';
import { linuxSystem, MAPPING, mmap, munmap, PROTECTION } from '../../src/memory/os/mman.js';
import type { VmbusOffer } from '../../src/vmbus/device.js';
import { openUioDevice } from '../../src/vmbus/uio/device.js';

const ADDRESS = 0x10_0000_0000;
const PAGE = 4096;
const PAGES = 32;
const PFN = BigInt(ADDRESS / PAGE);
const MESSAGES = 8;
/** Of the messages that lie on two pages: their place on the first, and the bytes of their frames. */
const OFFSET = 96;
const LARGE = 5000;
const V61 = 0x60001;
/** A host that nothing else keeps busy answers within this time. */
const SLEEP_MS = 40;
const PATIENCE_MS = 20_000;

const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);
const sleep = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

/** Fresh pages at the address, in place of what is there. */
function map(page: number, pages: number, protection: number = PROTECTION.READ | PROTECTION.WRITE): Buffer {
  const flags = MAPPING.PRIVATE | MAPPING.ANONYMOUS | MAPPING.FIXED;
  mmap(ADDRESS + page * PAGE, pages * PAGE, protection, flags, -1, 0);
  return Buffer.from(viewOf(ADDRESS + page * PAGE, pages * PAGE));
}

/** A message of which every byte of the frame behind its type is `fill`. */
function message(to: string, from: string, bytes: number, fill: number): Uint8Array {
  return packet(concat(hexBytes(to), hexBytes(from), hexBytes('88b5'), new Uint8Array(bytes - 14).fill(fill)));
}

function attach(root: string, uuid: string): RawGuest {
  const arena = Arena.create({ bytes: 80 << 20, system: linuxSystem });
  const device = openUioDevice(arena, root, uuid);
  // The host is elsewhere: waits until its answers are there, and no more of them come.
  const step = () => {
    const { control } = guest.opened.receive;
    device.signal();
    const began = performance.now();
    let before = -1;
    for (;;) {
      const [write, read] = [arena.u32[control >>> 2]!, arena.u32[(control >>> 2) + 1]!];
      if (write !== read && write === before) return;
      if (performance.now() - began > PATIENCE_MS) throw new Error('the host does not answer');
      before = write;
      sleep(SLEEP_MS);
    }
  };
  // The part of the pair that is the host's is not looked at.
  const guest = new RawGuest(arena, { device, offer: undefined as unknown as VmbusOffer }, () => {
    if (opened) step();
    opened = true;
  });
  let opened = false;
  guest.attach(V61, { mtu: 9014 });
  return guest;
}

function hold(root: string, uuid: string): void {
  const memory = map(0, PAGES);
  const guest = attach(root, uuid);
  const bytes = message('020000000077', '020000000001', 1000, 0x11);
  memory.set(bytes, 100);
  createInterface({ input: process.stdin }).on('line', () => {
    for (let i = 0; i < MESSAGES; i++) guest.putRanges({ offset: 100, bytes: bytes.length, pfns: [PFN] });
    say({ type: 'put' });
  });
  say({ type: 'attached' });
}

function decoy(): void {
  map(0, PAGES).set(message('020000000077', '020000000001', 1000, 0x22), 100);
  process.stdin.resume();
  say({ type: 'decoy' });
}

function churn(root: string, uuid: string): void {
  map(0, PAGES);
  const guest = attach(root, uuid);
  new Worker(fileURLToPath(import.meta.url));
  const counts = { type: 'counts', sent: 0, good: 0, failed: 0 };
  const take = () => {
    guest.pair.device.signal();
    for (const { type, payload } of guest.all()) {
      if (type !== 11) continue;
      if (payload[4] === 1) counts.good++;
      else counts.failed++;
    }
  };
  setInterval(() => {
    for (let i = 0; i < 64 && counts.sent - counts.good - counts.failed < 256; i++) {
      const page = (counts.sent * 7) % (PAGES - 1);
      // Whatever is there: a message, or zeros, or nothing.
      guest.putRanges({ offset: OFFSET, bytes: 44 + LARGE, pfns: [PFN + BigInt(page), PFN + BigInt(page + 1)] });
      counts.sent++;
    }
    take();
  }, 0);
  setInterval(() => say(counts), 50);
  process.stdin.resume();
}

/** The thread that takes the pages away and gives them back. Nobody in this process looks at them but this thread. */
function takeAway(): void {
  const bytes = message('020000000077', '020000000001', LARGE, 0x33).subarray(0, PAGE - OFFSET);
  for (let turn = 0; ; turn++) {
    const page = (turn * 5) % PAGES;
    const what = turn % 8;
    if (what === 0) munmap(ADDRESS + page * PAGE, PAGE);
    else if (what === 1) map(page, 1, PROTECTION.NONE);
    else map(page, 1).set(bytes, OFFSET);
    if (turn % 64 === 0) sleep(1);
  }
}

const [role, root, uuid] = process.argv.slice(2) as [string, string, string];
if (!isMainThread) takeAway();
else if (role === 'hold') hold(root, uuid);
else if (role === 'churn') churn(root, uuid);
else decoy();
process.stdin.on('end', () => process.exit());
