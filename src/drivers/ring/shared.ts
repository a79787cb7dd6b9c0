// net_ring between two processes: frames are copied through a file that both map.

import { namesOf, RX_OFFLOAD, TX_OFFLOAD } from '../../ethdev/constants.js';
import type { Devargs } from '../../ethdev/devargs.js';
import type { DriverContext, PortDriver } from '../../ethdev/driver.js';
import { PortError } from '../../ethdev/errors.js';
import { betweenBursts } from '../../ethdev/queues.js';
import type { LinkStatus, PortConfig, PortInfo } from '../../ethdev/types.js';
import { SHARED_FAULT, SHARED_RING, SHARED_RING_END, SHARED_RING_READER } from '../../memory/layout.js';
import { socketPath } from '../../memory/rundir.js';
import { usualInfo, VirtualPort } from '../virtual-port.js';
import { RING_ENTRIES_MAX } from './handle-queue.js';
import { RingSession, SESSION_QUEUES, type Session, type SessionOwner } from './session.js';
import type { SharedRxDescription, SharedTxDescription } from './shared-queue.js';

const { at: CELL, bytes: END_BYTES } = SHARED_RING_END;
const READ = (SHARED_RING.bytes + SHARED_RING_READER.at.read) >>> 2;
/** Longest frame: the largest MTU, and a tag. */
const LONGEST_BYTES = 65_535 + 14 + 4;
const SEGMENTS_MAX = 65_535;
const HEAD_BYTES = 64;
const EXCLUSIVE_MS = 1000;

export class SharedRingPort extends VirtualPort implements PortDriver, SessionOwner {
  readonly #session: RingSession;
  /** A cell with the peer's number of tx queues; SHARED_RING_ENDs of rx queues, then of tx queues. */
  readonly #cells: number;
  #locks: readonly number[] = [];
  #joined: Session | undefined;
  #started = false;
  #enabled = true;
  #peerIsUp = false;
  #wasUp = false;
  #sessions = 0;
  #broken = 0;

  constructor(context: DriverContext, device: string, args: Devargs, path: string) {
    args.done(['peer', 'path']);
    super(context, device, args);
    this.#cells = context.arena.reserve(`${device} ends`, HEAD_BYTES + 2 * SESSION_QUEUES * END_BYTES);
    for (let queue = 0; queue < SESSION_QUEUES; queue++) {
      for (const end of [this.#rxEnd(queue), this.#txEnd(queue)]) this.#set(end, CELL.maxBytes, LONGEST_BYTES);
    }
    try {
      const socket = path.includes('/') ? path : socketPath(path);
      this.#session = new RingSession(context.arena, device, socket, this);
    } catch (error) {
      context.arena.release(this.#cells);
      void super.close();
      throw new PortError('EIO', device, `path=${path}: ${(error as Error).message}`, { cause: error });
    }
  }

  info(): PortInfo {
    const descriptors = { min: 1, max: RING_ENTRIES_MAX, align: 1, usual: 1024 };
    return usualInfo('net_ring', this.device, {
      ...{ maxRxQueues: SESSION_QUEUES, maxTxQueues: SESSION_QUEUES },
      ...{ rxDescriptors: descriptors, txDescriptors: descriptors, maxTxSegments: SEGMENTS_MAX },
      rxOffloads: RX_OFFLOAD.SCATTER | RX_OFFLOAD.VLAN_STRIP | RX_OFFLOAD.RSS_HASH,
      txOffloads: TX_OFFLOAD.MULTI_SEGS | TX_OFFLOAD.VLAN_INSERT,
      ...{ rxInterrupts: true, linkEvents: true },
    });
  }

  override async configure(config: Required<Omit<PortConfig, 'mtu'>>): Promise<void> {
    await super.configure(config);
    this.#tell();
  }

  useLocks(rx: readonly number[], tx: readonly number[]): void {
    this.#locks = [...new Set([...rx, ...tx])]; // a port around this one may have fewer
  }

  override async start(): Promise<void> {
    for (let queue = 0; queue < this.config!.rxQueues; queue++) {
      const { pool } = this.rxSetup(queue);
      for (let from = queue; from < SESSION_QUEUES; from += this.config!.rxQueues) {
        this.#set(this.#rxEnd(from), CELL.pool, pool.address);
        this.#set(this.#rxEnd(from), CELL.scatter, this.config!.rxOffloads & RX_OFFLOAD.SCATTER ? 1 : 0);
      }
    }
    this.#skip();
    this.#started = true;
    this.#changed();
  }

  override async stop(): Promise<void> {
    this.#started = false;
    this.#changed();
    this.#skip();
  }

  override async close(): Promise<void> {
    this.#session.close();
    this.context.arena.release(this.#cells);
    await super.close();
  }

  override async setLink(up: boolean): Promise<void> {
    this.#enabled = up;
    this.#changed();
  }

  override link(): LinkStatus {
    return { ...super.link(), up: this.#enabled && this.#joined !== undefined && this.#peerIsUp };
  }

  rxQueue(queue: number): SharedRxDescription {
    return {
      ...{ kind: 'shared', senders: this.#cells, ends: this.#rxEnd(0), queue, queues: this.config!.rxQueues },
      ...{ most: SESSION_QUEUES, counters: this.rxCounters(queue) },
    };
  }

  txQueue(queue: number): SharedTxDescription {
    return { kind: 'shared', end: this.#txEnd(queue), counters: this.txCounters(queue) };
  }

  override xstats(): [name: string, value: number][] {
    return [
      ['link_sessions', this.#sessions],
      ['link_broken_sessions', this.#broken],
    ];
  }

  tick(nowMs: number): void {
    this.#session.tick(nowMs);
    if (this.#joined === undefined) return;
    for (let queue = 0; queue < this.#joined.queues; queue++) {
      for (const [what, end] of [['rx', this.#rxEnd(queue)] as const, ['tx', this.#txEnd(queue)] as const]) {
        const fault = this.#get(end, CELL.fault);
        if (fault === SHARED_FAULT.NONE) continue;
        this.#broken++;
        const [name] = namesOf(SHARED_FAULT, fault).slice(-1);
        const value = `0x${this.#get(end, CELL.faultValue).toString(16)}`;
        this.#session.drop(`the peer broke the rules of ${what} queue ${queue}: ${name} ${value}`, nowMs);
        return;
      }
    }
  }

  join(session: Session): void {
    this.#sessions++;
    this.#joined = session;
    this.#exclusively(() => {
      for (let queue = 0; queue < session.queues && queue < SESSION_QUEUES; queue++) {
        const fd = session.wakeFds[queue]!;
        this.#attach(this.#rxEnd(queue), session.rx[queue]!, session.slots, fd);
        this.#attach(this.#txEnd(queue), session.tx[queue]!, session.slots, fd);
      }
    });
    this.#tell();
  }

  leave(): void {
    this.#joined = undefined;
    this.#peerIsUp = false;
    this.#exclusively(() => {
      for (let queue = 0; queue < SESSION_QUEUES; queue++) {
        this.#set(this.#rxEnd(queue), CELL.ring, 0);
        this.#set(this.#txEnd(queue), CELL.ring, 0);
      }
    });
    this.#changed();
  }

  peerUp(up: boolean, txQueues: number): void {
    this.#peerIsUp = up;
    Atomics.store(this.context.arena.u32, this.#cells >>> 2, Math.min(txQueues, SESSION_QUEUES));
    this.#changed();
  }

  log(line: string): void {
    this.context.log(line);
  }

  #rxEnd(queue: number): number {
    return this.#cells + HEAD_BYTES + queue * END_BYTES;
  }
  #txEnd(queue: number): number {
    return this.#rxEnd(SESSION_QUEUES + queue);
  }
  #get(end: number, cell: number): number {
    return this.context.arena.u32[(end + cell) >>> 2]!;
  }
  #set(end: number, cell: number, value: number): void {
    this.context.arena.u32[(end + cell) >>> 2] = value;
  }

  #attach(end: number, ring: number, slots: number, fd: number): void {
    for (const cell of [CELL.index, CELL.seen, CELL.fault, CELL.faultValue]) this.#set(end, cell, 0);
    this.#set(end, CELL.slots, slots);
    this.#set(end, CELL.wakeFd, fd + 1);
    this.#set(end, CELL.ring, ring);
  }

  /** Forgets what waits to be received. Stopped. */
  #skip(): void {
    if (this.#joined === undefined) return;
    const { u32 } = this.context.arena;
    for (let queue = 0; queue < this.#joined.queues; queue++) {
      const end = this.#rxEnd(queue);
      const ring = this.#get(end, CELL.ring) >>> 2;
      const written = Atomics.load(u32, ring);
      if ((written - this.#get(end, CELL.index)) >>> 0 > this.#get(end, CELL.slots)) continue; // the next burst sees it
      this.#set(end, CELL.index, written);
      this.#set(end, CELL.seen, written);
      Atomics.store(u32, ring + READ, written);
    }
  }

  /** Says to the peer whether packets are taken here; tells the user of a link that went up or down. */
  #changed(): void {
    this.#tell();
    const link = this.link();
    for (let queue = 0; queue < SESSION_QUEUES; queue++) this.#set(this.#txEnd(queue), CELL.open, link.up ? 1 : 0);
    if (link.up === this.#wasUp) return;
    this.#wasUp = link.up;
    this.onEvent?.({ type: 'link', link });
  }

  #tell(): void {
    this.#session?.setUp(this.#started && this.#enabled, this.config?.txQueues ?? 0);
  }

  /** Runs control code while no burst does, on any queue. Throws PortError when a burst does not end. */
  #exclusively(what: () => void): void {
    const { u32 } = this.context.arena;
    const within = (locks: readonly number[]): void => {
      const [first, ...others] = locks;
      if (first === undefined) {
        what();
        return;
      }
      const began = performance.now();
      while (!betweenBursts(u32, first, () => within(others))) {
        if (performance.now() - began > EXCLUSIVE_MS)
          throw new PortError('ETIMEDOUT', this.device, `a burst did not end within ${EXCLUSIVE_MS} ms`);
      }
    };
    within(this.#locks);
  }
}
