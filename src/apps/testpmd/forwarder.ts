// Starts and ends the threads that forward, and counts what they did.
import { setTimeout as sleep } from 'node:timers/promises';
import type { BasicStats } from '../../ethdev/types.js';
import { read64 } from '../../memory/cells64.js';
import { PACKET_FLAG } from '../../memory/layout.js';
import { FORWARD_CONTROL, FORWARD_STREAM } from '../../memory/layout-forward.js';
import { formatMac, parseMac } from '../../wire/address-text.js';
import { planText, rxTxText } from './config-text.js';
import type { EngineSetup } from './engine.js';
import { RETRY_MODES } from './modes.js';
import type { Session } from './session.js';
import { forwardStats, type StreamCounts } from './stats.js';
import type { Plan, Stream } from './streams.js';
import { flowgenTemplate, type Template, txonlyTemplate } from './template.js';
import { BURST_MAX } from './values.js';

/** How long threads may take to open their queues, and how often to look. */
const READY_MS = 20_000;
const LOOK_MS = 1;

type StreamCell = keyof typeof FORWARD_STREAM.at;
type ControlCell = keyof typeof FORWARD_CONTROL.at;

export class Forwarder {
  readonly #session: Session;
  readonly #control: number;
  #plan: Plan;
  /** FORWARD_STREAM of each stream of the plan, and what else is reserved for them. */
  #cells: number[] = [];
  #reserved: number[] = [];
  #running = false;
  /** Port statistics when forwarding began, and counters of streams then. */
  readonly #before = new Map<number, BasicStats>();
  #countsBefore: StreamCounts[] = [];
  #threads: Promise<unknown>[] = [];
  /** Why a thread ended by itself. */
  #fault: Error | undefined;

  constructor(session: Session) {
    this.#session = session;
    this.#control = session.eal.arena.reserve('testpmd control', FORWARD_CONTROL.bytes);
    this.#plan = session.plan();
    this.tell('burst', session.burst);
  }

  get running(): boolean {
    return this.#running;
  }
  /** Of the threads that run, or ran last. */
  get plan(): Plan {
    return this.#plan;
  }

  /** Changes what threads look at while they forward. */
  tell(cell: ControlCell, value: number): void {
    Atomics.store(this.#session.eal.arena.u32, (this.#control + FORWARD_CONTROL.at[cell]) >>> 2, value);
  }

  /** "start": everything that testpmd says about it, then the threads. False = not started. */
  async start(txFirst = 0): Promise<boolean> {
    const session = this.#session;
    const { out } = session;
    const problem = this.#problem();
    if (problem !== undefined) {
      out.complain(problem);
      return false;
    }
    const plan = session.plan();
    out.print(planText(session, plan));
    out.print(rxTxText(session));
    this.#release();
    this.#plan = plan;
    this.#cells = plan.streams.map((stream, i) => this.#setUp(stream, i));
    this.#countsBefore = plan.streams.map((_, i) => this.#count(i));
    for (const cell of ['ready', 'go'] as const) this.tell(cell, 0);
    this.tell('verbose', session.verbose);
    this.tell('burst', session.burst);
    this.#running = true;
    this.#launch(txFirst);
    if (await this.#ready()) {
      this.#snapshot();
      this.#go();
      return true;
    }
    await this.#end();
    out.complain(this.#fault?.message ?? `no thread was ready within ${READY_MS} ms`);
    return false;
  }

  /** "stop". False = nothing was running. */
  async stop(): Promise<boolean> {
    const { out } = this.#session;
    if (!this.#running) {
      out.complain('Packet forwarding not started');
      return false;
    }
    out.print('Telling cores to stop...');
    out.print('Waiting for lcores to finish...');
    await this.#end();
    if (this.#fault) out.complain(this.#fault.message);
    out.print(this.text());
    out.print('\nDone.');
    return true;
  }

  /** "show fwd stats all". */
  text(): string {
    const { ports, streams } = this.#plan;
    return forwardStats({
      ports,
      streams: streams.map((stream, i) => ({ ...stream, ...this.#grown(i) })),
      of: (port) => this.#portStats(port),
      checksums: this.#plan.mode === 'csum',
    });
  }

  /** "clear fwd stats all". */
  clear(): void {
    this.#snapshot();
    this.#countsBefore = this.#plan.streams.map((_, i) => this.#count(i));
  }

  /** Gives memory back. Nothing runs. */
  close(): void {
    this.#release();
    this.#session.eal.arena.release(this.#control);
  }

  /** Why forwarding cannot start. */
  #problem(): string | undefined {
    const { mode, rxQueues, txQueues, open, segments, pool } = this.#session;
    if (mode === 'rxonly' && rxQueues === 0) return 'rxq are 0, cannot use rxonly fwd mode';
    if (mode === 'txonly' && txQueues === 0) return 'txq are 0, cannot use txonly fwd mode';
    if (mode !== 'rxonly' && mode !== 'txonly' && (rxQueues === 0 || txQueues === 0))
      return `Either rxq or txq are 0, cannot use ${mode} fwd mode`;
    if (open.some(({ port }) => port.state !== 'started')) return 'Not all ports were started';
    if (this.#running) return 'Packet forwarding already started';
    const longest = Math.max(...segments);
    const data = pool.room - pool.headroom;
    if (longest > data) return `txpkts: expected segments of at most ${data} bytes, an mbuf's room, got ${longest}`;
    return undefined;
  }

  #launch(txFirst: number): void {
    const { eal, retry, retries, retryDelayUs, flushRx, options, pool } = this.#session;
    this.#fault = undefined;
    let next = 0;
    this.#threads = this.#plan.shares.map(({ core, streams }) => {
      const { mode } = this.#plan;
      const cells = this.#cells.slice(next, next + streams.length);
      next += streams.length;
      const setup: EngineSetup = {
        ...{ mode, control: this.#control, txFirst, flush: flushRx, interrupts: options.rxInterrupts },
        streams: streams.map((stream, i) => ({ ...stream, cells: cells[i]! })),
        ...{ retries: retry && RETRY_MODES.includes(mode) ? retries : 0, retryDelayUs },
        pools: [[pool.address, pool.name]],
      };
      const lcore = eal.options.cpus.indexOf(core);
      const done = eal.launch(lcore, new URL('./engine.js', import.meta.url), 'forward', setup);
      done.catch((error: Error) => {
        this.#fault ??= error;
      });
      return done;
    });
  }

  async #ready(): Promise<boolean> {
    const { u32 } = this.#session.eal.arena;
    const at = (this.#control + FORWARD_CONTROL.at.ready) >>> 2;
    const until = performance.now() + READY_MS;
    while (Atomics.load(u32, at) < this.#threads.length) {
      if (this.#fault || performance.now() > until) return false;
      await sleep(LOOK_MS);
    }
    return true;
  }

  /** Wakes the threads that wait to begin. */
  #go(): void {
    this.tell('go', 1);
    const shared = new Int32Array(this.#session.eal.arena.memory.buffer);
    Atomics.notify(shared, (this.#control + FORWARD_CONTROL.at.go) >>> 2);
  }

  async #end(): Promise<void> {
    await this.#session.eal.stopLcores();
    await Promise.allSettled(this.#threads);
    this.#running = false;
  }

  #snapshot(): void {
    this.#before.clear();
    for (const id of this.#plan.ports) {
      const test = this.#session.ports.get(id);
      if (test) this.#before.set(id, test.port.stats());
    }
  }

  /** Since forwarding began; what was counted down since, by "clear port stats", counts as nothing. */
  #portStats(id: number): BasicStats {
    const now = { ...this.#session.ports.get(id)!.port.stats() };
    const before = this.#before.get(id);
    if (before)
      for (const key of Object.keys(now) as (keyof BasicStats)[]) now[key] = Math.max(0, now[key] - before[key]);
    return now;
  }

  #count(index: number): StreamCounts {
    const { u32 } = this.#session.eal.arena;
    const read = (cell: StreamCell) => read64(u32, (this.#cells[index]! + FORWARD_STREAM.at[cell]) >>> 2);
    return {
      ...{ rxPackets: read('rxPackets'), txPackets: read('txPackets'), txDropped: read('txDropped') },
      ...{ rxBadIp: read('rxBadIp'), rxBadL4: read('rxBadL4') },
    };
  }

  #grown(index: number): StreamCounts {
    if (this.#cells[index] === undefined) return { rxPackets: 0, txPackets: 0, txDropped: 0, rxBadIp: 0, rxBadL4: 0 };
    const now = this.#count(index);
    const before = this.#countsBefore[index]!;
    return {
      ...{ rxPackets: now.rxPackets - before.rxPackets, txPackets: now.txPackets - before.txPackets },
      ...{ txDropped: now.txDropped - before.txDropped },
      ...{ rxBadIp: now.rxBadIp - before.rxBadIp, rxBadL4: now.rxBadL4 - before.rxBadL4 },
    };
  }

  #reserve(name: string, bytes: number): number {
    const at = this.#session.eal.arena.reserve(`testpmd ${name}`, bytes);
    this.#reserved.push(at);
    return at;
  }

  #release(): void {
    for (const at of this.#reserved) this.#session.eal.arena.release(at);
    this.#reserved = [];
    this.#cells = [];
  }

  /** Fills in a FORWARD_STREAM. */
  #setUp(stream: Stream, index: number): number {
    const session = this.#session;
    const { u8, u32 } = session.eal.arena;
    const cells = this.#reserve('stream', FORWARD_STREAM.bytes);
    const set = (cell: StreamCell, value: number) => {
      u32[(cells + FORWARD_STREAM.at[cell]) >>> 2] = value;
    };
    const tx = session.ports.get(stream.txPort)!;
    const peer = session.peer(stream.txPort);
    u8.set(peer, cells + FORWARD_STREAM.at.addresses);
    u8.set(parseMac(tx.port.mac)!, cells + FORWARD_STREAM.at.addresses + 6);
    set('checksums', tx.checksums);
    set('tsoSegment', tx.tsoSegment);
    set('keepAddresses', tx.keepAddresses ? 1 : 0);
    const { template, lengths } = this.#template(formatMac(peer), tx.port.mac, index);
    const bytes = this.#reserve('template', template.bytes.length);
    u8.set(template.bytes, bytes);
    const table = this.#reserve('segments', lengths.length * 4);
    u32.set(lengths, table >>> 2);
    set('template', bytes);
    set('templateFlags', PACKET_FLAG.IPV4 | PACKET_FLAG.UDP);
    set('pool', session.pool.address);
    set('segmentBytes', table);
    set('segmentCount', lengths.length);
    set('flows', template.flows);
    set('flowOffset', template.flowOffset);
    set('flowBase', template.flowBase);
    return cells;
  }

  /** What the stream makes, if its mode makes packets or tx_first does, and how it is cut into segments. */
  #template(peer: string, own: string, index: number): { template: Template; lengths: number[] } {
    const { segments, options, pool, mode } = this.#session;
    const length = segments.reduce((sum, bytes) => sum + bytes, 0);
    if (mode !== 'flowgen')
      return { template: txonlyTemplate(length, peer, own, options.multiFlow, index), lengths: [...segments] };
    const template = flowgenTemplate(length, options.flows);
    const room = pool.room - pool.headroom;
    const lengths: number[] = [];
    for (let left = template.bytes.length; left > 0; left -= room) lengths.push(Math.min(left, room));
    return { template, lengths };
  }
}

/** Packets of a burst that is still fine. */
export const burstInRange = (count: number): boolean => count >= 1 && count <= BURST_MAX;
