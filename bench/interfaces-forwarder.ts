// A worker that passes packets between two TAP interfaces as they are: the baseline for the NetVSC path, which does the
// same with a guest, a host and a switch in between. Same loop, same reads and writes.
import { parentPort, workerData } from 'node:worker_threads';
import { type Pollable, PollLoop } from '../src/ethdev/loop.js';
import { Arena } from '../src/memory/arena.js';
import { linuxSystem } from '../src/memory/os/mman.js';
import { inNetwork } from '../src/memory/os/netns.js';
import { TapIo } from '../src/memory/os/packet-io.js';
import { openTap, setTapOffload, TAP_OFFLOAD, TAP_PACKET_MAX } from '../src/memory/os/tap.js';

const BURST = 32;
const STRIDE = (TAP_PACKET_MAX + 63) & ~63;

class Direction implements Pollable {
  readonly #from: TapIo;
  readonly #to: TapIo;
  readonly #fd: number;
  readonly #addresses: Int32Array;
  readonly #capacities = new Int32Array(BURST).fill(TAP_PACKET_MAX);

  constructor(arena: Arena, from: number, to: number) {
    this.#from = new TapIo(arena, from, { batch: BURST });
    this.#to = new TapIo(arena, to, { batch: BURST });
    this.#fd = from;
    const buffers = arena.reserve('forwarder', BURST * STRIDE);
    this.#addresses = Int32Array.from({ length: BURST }, (_, i) => buffers + i * STRIDE);
  }

  step(): number {
    const count = this.#from.read(this.#addresses, this.#capacities, BURST);
    if (count > 0) this.#to.write(this.#addresses, this.#from.lengths, count);
    return count;
  }

  tick(): void {}

  arm(): boolean {
    return true;
  }

  disarm(): void {}

  fds(): readonly number[] {
    return [this.#fd];
  }
}

const arena = Arena.create({ bytes: 64 << 20, system: linuxSystem });
const offload = TAP_OFFLOAD.CSUM | TAP_OFFLOAD.TSO4 | TAP_OFFLOAD.TSO6 | TAP_OFFLOAD.TSO_ECN;
const [left, right] = (workerData as { ifname: string; netnsPid: number }[]).map(({ ifname, netnsPid }) => {
  const { fd } = inNetwork(netnsPid, () => openTap(ifname));
  setTapOffload(fd, offload);
  return fd;
}) as [number, number];
const loop = new PollLoop();
loop.add(new Direction(arena, left, right));
loop.add(new Direction(arena, right, left));
loop.start();
parentPort!.postMessage('ready');
