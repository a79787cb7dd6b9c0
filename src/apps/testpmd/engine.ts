// The threads that forward: a stream is a receive queue, a pass over what came, a transmit queue. Nothing is allocated here
// once a stream is open.
import type { Datapath } from '../../datapath/datapath.js';
import { type LcoreThread, polling } from '../../ethdev/lcore.js';
import type { RxQueue, TxQueue } from '../../ethdev/queues.js';
import { add64 } from '../../memory/cells64.js';
import { FORWARD_CONTROL, FORWARD_STREAM } from '../../memory/layout-forward.js';
import type { Mode } from './modes.js';
import type { Stream } from './streams.js';
import { BURST_MAX } from './values.js';
import { PacketPrinter } from './verbose.js';

/** Plain data, from the control thread. */
export interface EngineSetup {
  readonly mode: Mode;
  /** Addresses of a FORWARD_STREAM each. */
  readonly streams: readonly (Stream & { readonly cells: number })[];
  /** Address of the FORWARD_CONTROL. */
  readonly control: number;
  /** How often to try what a transmit queue did not take, microseconds between. */
  readonly retries: number;
  readonly retryDelayUs: number;
  /** Bursts to send before forwarding. */
  readonly txFirst: number;
  /** Drop what waits in the queues. */
  readonly flush: boolean;
  /** Sleep while nothing comes. */
  readonly interrupts: boolean;
  /** Names of mbuf pools by address, for "set verbose". */
  readonly pools: readonly (readonly [address: number, name: string])[];
}

/** Passes over all streams between two looks at whether to end. */
const ROUNDS = 32;
/** How long a queue that never runs dry is emptied. */
const FLUSH_MS = 10;
const FLUSHES = 2;
const VERBOSE_RX = 1;
const VERBOSE_TX = 2;

const { rxPackets, txPackets, txDropped } = FORWARD_STREAM.at;
const { burst, verbose } = FORWARD_CONTROL.at;

abstract class Engine {
  protected readonly datapath: Datapath;
  protected readonly cells: number;
  /** Address of the burst's mbufs. */
  protected readonly handles: number;
  protected readonly u32: Uint32Array;
  readonly rx: RxQueue;
  readonly #tx: TxQueue;
  readonly #control: number;
  readonly #retries: number;
  readonly #delayMs: number;
  readonly #printer: PacketPrinter;
  readonly #stream: Stream;

  constructor(lcore: LcoreThread, setup: EngineSetup, index: number) {
    const stream = setup.streams[index]!;
    this.datapath = lcore.datapath;
    this.u32 = lcore.arena.u32;
    this.cells = stream.cells;
    this.handles = lcore.reserve('burst', BURST_MAX * 4);
    this.rx = lcore.port(stream.rxPort).rxQueue(stream.rxQueue);
    this.#tx = lcore.port(stream.txPort).txQueue(stream.txQueue);
    this.#control = setup.control;
    this.#retries = setup.retries;
    this.#delayMs = setup.retryDelayUs / 1000;
    this.#printer = new PacketPrinter(lcore, setup.pools, setup.mode);
    this.#stream = stream;
  }

  /** One burst; returns how many packets there were. */
  abstract step(): number;

  protected get burst(): number {
    return this.u32[(this.#control + burst) >>> 2]!;
  }

  protected receive(): number {
    const count = this.rx.burst(this.handles, this.burst);
    if (count === 0) return 0;
    add64(this.u32, (this.cells + rxPackets) >>> 2, count);
    if ((this.u32[(this.#control + verbose) >>> 2]! & VERBOSE_RX) !== 0)
      this.#printer.received(this.#stream.rxPort, this.#stream.rxQueue, this.handles, count);
    return count;
  }

  /** With "set verbose": what was found out about the packets of the burst, now that they have been worked on. */
  protected told(count: number): void {
    if ((this.u32[(this.#control + verbose) >>> 2]! & VERBOSE_RX) !== 0) this.#printer.worked(this.handles, count);
  }

  /** Sends the first `count` packets of the burst; those that the queue does not take are freed and counted. */
  protected send(count: number): void {
    if ((this.u32[(this.#control + verbose) >>> 2]! & VERBOSE_TX) !== 0)
      this.#printer.sent(this.#stream.txPort, this.#stream.txQueue, this.handles, count);
    let sent = this.#tx.burst(this.handles, count);
    for (let i = 0; sent < count && i < this.#retries; i++) {
      const until = performance.now() + this.#delayMs;
      while (performance.now() < until);
      sent += this.#tx.burst(this.handles + sent * 4, count - sent);
    }
    add64(this.u32, (this.cells + txPackets) >>> 2, sent);
    if (sent < count) {
      add64(this.u32, (this.cells + txDropped) >>> 2, count - sent);
      this.datapath.mbufFree(this.handles + sent * 4, count - sent);
    }
  }

  /** Frees what waits in the receive queue. */
  flush(): void {
    const until = performance.now() + FLUSH_MS;
    for (let count = 1; count > 0 && performance.now() < until; ) {
      count = this.rx.burst(this.handles, BURST_MAX);
      if (count > 0) this.datapath.mbufFree(this.handles, count);
    }
  }

  /** A burst of packets that the template makes. */
  sendMade(): number {
    const count = this.datapath.forwardMake(this.cells, this.handles, this.burst);
    if (count > 0) this.send(count);
    return count;
  }
}

class Io extends Engine {
  step(): number {
    const count = this.receive();
    if (count > 0) this.send(count);
    return count;
  }
}

class MacForward extends Engine {
  step(): number {
    const count = this.receive();
    if (count > 0) {
      this.datapath.forwardMac(this.cells, this.handles, count);
      this.send(count);
    }
    return count;
  }
}

class MacSwap extends Engine {
  step(): number {
    const count = this.receive();
    if (count > 0) {
      this.datapath.forwardMacSwap(this.handles, count);
      this.send(count);
    }
    return count;
  }
}

class Swap5 extends Engine {
  step(): number {
    const count = this.receive();
    if (count > 0) {
      this.datapath.forwardSwap5(this.handles, count);
      this.send(count);
    }
    return count;
  }
}

class Checksum extends Engine {
  step(): number {
    const count = this.receive();
    if (count > 0) {
      this.datapath.forwardChecksum(this.cells, this.handles, count);
      this.told(count);
      this.send(count);
    }
    return count;
  }
}

class Echo extends Engine {
  step(): number {
    const count = this.receive();
    if (count > 0) {
      const answers = this.datapath.forwardEcho(this.cells, this.handles, count);
      if (answers > 0) this.send(answers);
    }
    return count;
  }
}

class RxOnly extends Engine {
  step(): number {
    const count = this.receive();
    if (count > 0) this.datapath.mbufFree(this.handles, count);
    return count;
  }
}

class TxOnly extends Engine {
  step(): number {
    return this.sendMade();
  }
}

class FlowGen extends Engine {
  step(): number {
    const count = this.receive();
    if (count > 0) this.datapath.mbufFree(this.handles, count);
    return count + this.sendMade();
  }
}

const ENGINES: Readonly<Record<Mode, new (...args: ConstructorParameters<typeof Engine>) => Engine>> = {
  ...{ io: Io, mac: MacForward, macswap: MacSwap, flowgen: FlowGen, rxonly: RxOnly, txonly: TxOnly },
  ...{ csum: Checksum, icmpecho: Echo, '5tswap': Swap5 },
};

/** Runs in an lcore's thread until it is to end. */
export async function forward(lcore: LcoreThread, setup: EngineSetup): Promise<void> {
  const engines = setup.streams.map((_, index) => new ENGINES[setup.mode](lcore, setup, index));
  if (setup.flush && setup.mode !== 'txonly') {
    for (let i = 0; i < FLUSHES; i++) for (const engine of engines) engine.flush();
  }
  ready(lcore, setup.control);
  for (let i = 0; i < setup.txFirst; i++) for (const engine of engines) engine.sendMade();
  const step = () => {
    let work = 0;
    for (const engine of engines) work += engine.step();
    return work;
  };
  if (setup.interrupts)
    return lcore.run(
      polling(
        step,
        engines.map(({ rx }) => rx),
      ),
    );
  while (lcore.running) for (let i = 0; i < ROUNDS; i++) step();
}

/** Tells the control thread, and waits until all threads are ready. */
function ready(lcore: LcoreThread, control: number): void {
  const shared = new Int32Array(lcore.arena.memory.buffer);
  Atomics.add(shared, (control + FORWARD_CONTROL.at.ready) >>> 2, 1);
  const go = (control + FORWARD_CONTROL.at.go) >>> 2;
  while (lcore.running && Atomics.load(shared, go) === 0) Atomics.wait(shared, go, 0, 10);
}
