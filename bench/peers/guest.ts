// Our guest of the suite `peers`: the same work as guest.c. Arguments: folder of the batons, name of the machine, its path,
// UUID of the device.
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import { createGuestNic } from '../../src/apps/guest-nic.js';
import { createDatapath } from '../../src/datapath/datapath.js';
import { PollLoop } from '../../src/ethdev/loop.js';
import { Arena } from '../../src/memory/arena.js';
import { MBUF } from '../../src/memory/layout.js';
import { linuxSystem } from '../../src/memory/os/mman.js';
import { setAffinity, setParentDeathSignal } from '../../src/memory/os/process.js';
import { openUioDevice } from '../../src/vmbus/uio/device.js';
import { parseMac } from '../../src/wire/address-text.js';
import { BURST, median } from '../traffic.js';
import { Baton } from './baton.js';
import { type GuestFigures, parseTask, say, type Task, WARM_UP_MS } from './task.js';
import { UPLINK_MAC } from './uplink.js';

/** Calls in a row that may move nothing while the host stands still. */
const ATTEMPTS = 1000;
/** Cells of an mbuf, in words. */
const DATA = MBUF.at.data >>> 2;
const DATA_LENGTH = MBUF.at.dataLength >>> 2;
const PACKET_LENGTH = MBUF.at.packetLength >>> 2;

const [folder, name, path, uuid] = process.argv.slice(2) as [string, string, string, string];
setParentDeathSignal(constants.signals.SIGKILL);
const arena = Arena.create({ bytes: 256 << 20, system: linuxSystem });
const datapath = createDatapath(arena.memory);
const { u32 } = arena;
const baton = new Baton(folder, name, 'guest');
const bus = openUioDevice(arena, path, uuid);
const nic = createGuestNic(arena, datapath, bus);
const { device, smallPool } = nic;
const toSend = arena.reserve('packets to send', BURST * 4);
const received = arena.reserve('packets received', BURST * 4);
const head = new Uint32Array(4);
let wrong = 0;
/** Whether the driver's calls are timed, ms in them so far, and what looking at the clock takes of that. */
let timing = false;
let callMs = 0;
let clockMs = 0;

const beforeCall = () => (timing ? performance.now() : 0);
const afterCall = (before: number) => {
  if (timing) callMs += performance.now() - before - clockMs;
};

function measureClock(): void {
  const took: number[] = [];
  for (let i = 0; i < 10_000; i++) {
    const before = performance.now();
    took.push(performance.now() - before);
  }
  clockMs = median(took.slice(5000)); // compiled
}

/** A burst of packets to send: buffers, lengths, headers. */
function make(bytes: number): void {
  if (datapath.poolGet(smallPool, toSend, BURST) !== BURST) throw new Error('no buffers');
  const list = toSend >>> 2;
  const h0 = head[0]!;
  const h1 = head[1]!;
  const h2 = head[2]!;
  const h3 = head[3]!;
  for (let i = 0; i < BURST; i++) {
    const mbuf = u32[list + i]! >>> 2;
    const data = u32[mbuf + DATA]! >>> 2;
    u32[mbuf + DATA_LENGTH] = bytes;
    u32[mbuf + PACKET_LENGTH] = bytes;
    u32[data] = h0;
    u32[data + 1] = h1;
    u32[data + 2] = h2;
    u32[data + 3] = h3;
  }
}

/** Looks at the headers of what came and frees it. */
function take(count: number, bytes: number): void {
  if (count === 0) return;
  const list = received >>> 2;
  const expected = head[3]!;
  for (let i = 0; i < count; i++) {
    const mbuf = u32[list + i]! >>> 2;
    const data = u32[mbuf + DATA]! >>> 2;
    if (u32[data + 3] !== expected || u32[mbuf + DATA_LENGTH] !== bytes) wrong++;
  }
  datapath.mbufFree(received, count);
}

function sendGroup(bytes: number, group: number): void {
  for (let done = 0; done < group; done += BURST) {
    make(bytes);
    for (let attempt = 0, sent = 0; sent < BURST; attempt++) {
      if (attempt === ATTEMPTS) throw new Error('the driver takes no more packets');
      const before = beforeCall();
      // What was sent earlier completes here; the C driver looks for that in its send call.
      const got = device.poll(received, BURST);
      sent += device.send(toSend + sent * 4, BURST - sent);
      afterCall(before);
      take(got, bytes);
    }
  }
}

function receiveGroup(bytes: number, group: number): void {
  let idle = 0;
  for (let got = 0; got < group; ) {
    const before = beforeCall();
    const count = device.poll(received, BURST);
    afterCall(before);
    if (count === 0 && ++idle === ATTEMPTS) throw new Error('packets are missing');
    take(count, bytes);
    got += count;
  }
}

/** Host and guest in turn, a group of packets each. Every other turn times the driver's calls, which disturbs the rest. */
function step({ mode, bytes, group, count }: Task): GuestFigures {
  const workNs: number[] = [];
  const callNs: number[] = [];
  for (let turn = 0; turn < count; turn++) {
    baton.pass();
    baton.wait();
    timing = turn % 2 === 1;
    callMs = 0;
    const start = performance.now();
    if (mode === 'tx') sendGroup(bytes, group);
    else receiveGroup(bytes, group);
    if (timing) callNs.push((callMs * 1e6) / group);
    else workNs.push(((performance.now() - start) * 1e6) / group);
  }
  baton.pass();
  baton.wait();
  return { packets: count * group, ns: median(callNs), workNs: median(workNs), wrong };
}

/** Both at once; only the slice behind the warm-up counts. */
function free({ mode, bytes, count }: Task): GuestFigures {
  let have = 0;
  let packets = 0;
  let busy = 0;
  let total = 0;
  baton.pass();
  let last = performance.now();
  const begin = last + WARM_UP_MS;
  const end = begin + count;
  while (last < end) {
    let moved: number;
    if (mode === 'tx') {
      if (have === 0) {
        make(bytes);
        have = BURST;
      }
      take(device.poll(received, BURST), bytes);
      moved = device.send(toSend + (BURST - have) * 4, have);
      have -= moved;
    } else {
      moved = device.poll(received, BURST);
      take(moved, bytes);
    }
    const now = performance.now();
    if (last >= begin) {
      packets += moved;
      total += now - last;
      if (moved > 0) busy += now - last;
    }
    last = now;
  }
  datapath.mbufFree(toSend + (BURST - have) * 4, have);
  baton.wait();
  for (let moved = 1; mode === 'rx' && moved > 0; ) {
    moved = device.poll(received, BURST);
    take(moved, bytes);
  }
  return { packets, ns: packets && (busy * 1e6) / packets, ms: total, busy: total && busy / total, wrong };
}

const loop = new PollLoop();
loop.add({
  step() {
    const count = device.poll(received, BURST);
    datapath.mbufFree(received, count);
    return count;
  },
  tick: (now) => device.tick(now),
  arm: () => device.arm(),
  disarm: (signalled) => device.disarm(signalled),
  fds: () => device.fds(),
});
loop.start();
const { mac } = await device.attach();
const headBytes = new Uint8Array(head.buffer);
headBytes.set([...UPLINK_MAC, ...parseMac(mac)!, 8, 0, 0x45, 0]);

measureClock();
const input = createInterface({ input: process.stdin });
input.on('line', (line) => {
  const task = parseTask(line);
  setAffinity([task.cpu]);
  say('done', task.how === 'step' ? step(task) : free(task));
});
input.on('close', async () => {
  await device.detach();
  await loop.stop();
  loop.close();
  nic.close();
  bus.close();
  baton.close();
});
say('ready', {});
