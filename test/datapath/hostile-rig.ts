// A rig whose regions have guards behind them, and the check that a side wrote only what is its own.
import assert from 'node:assert/strict';
import { createRig, type Rig, type RigOptions } from '../../bench/rig.js';
import type { Datapath } from '../../src/datapath/datapath.js';
import { type Arena, STATIC_BYTES } from '../../src/memory/arena.js';
import { DEFAULT_SCRATCH, GUEST_QUEUE, HOST_CHANNEL, POOL, SCRATCH } from '../../src/memory/layout.js';

const GUARD = 256;
const FILL = 0xa5;
/** So many bytes of a guard in what a side hands out: it read where it must not. */
const LEAK = Buffer.alloc(16, FILL);
const CONTROL = 4096;

const BOTH = ['guest ring', 'host ring'];
const GUEST = [
  ...['send buffer', 'packet memory', 'small pool', 'large pool', 'guest queue', 'guest events', 'free sections'],
  ...['slots', 'free slots', 'completions', 'ranges', 'handles'],
];
const HOST = [
  ...['receive buffer', 'host channel', 'host events', 'suballocations', 'free suballocations', 'free control'],
  ...['transactions', 'frames', 'fragments', 'heads', 'frame list'],
];
const NOBODY = ['pfn table', 'regions', 'own frames'];

export type Side = 'guest' | 'host';
interface Span {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

export class HostileRig {
  readonly arena: Arena;
  readonly rig: Rig;
  readonly spans = new Map<string, Span>();
  readonly #forbidden: Record<Side, Span[]>;
  readonly #idle: Span[];
  readonly #copy: Uint8Array;
  readonly #before: Uint8Array;

  constructor(arena: Arena, datapath: Datapath, options: RigOptions) {
    this.arena = arena;
    const guards: Span[] = [];
    const guarded = {
      u32: arena.u32,
      reserve: (name: string, bytes: number, align: number) => {
        const address = arena.reserve(name, bytes + GUARD, align);
        const end = address + bytes;
        guards.push({ name: `guard behind ${name}`, from: end, to: end + GUARD });
        this.spans.set(name, { name, from: address, to: end });
        return address;
      },
      release: (address: number) => arena.release(address),
    };
    this.rig = createRig(guarded as unknown as Arena, datapath, options);
    for (const { from, to } of guards) arena.u8.fill(FILL, from, to);
    const named = (names: readonly string[]) =>
      names.map((name) => {
        const span = this.spans.get(name);
        assert.ok(span, `rig has no region ${name}`);
        return span;
      });
    const known = [...BOTH, ...GUEST, ...HOST, ...NOBODY];
    assert.deepEqual(
      [...this.spans.keys()].filter((name) => !known.includes(name)),
      [],
      'regions without an owner',
    );
    const part = (name: string, from: number, to: number) => {
      const span = this.spans.get(name)!;
      return { name: `${name} +${from}`, from: span.from + from, to: Math.min(span.from + to, span.to) };
    };
    const rest: Span[] = [
      { name: 'memory below the scratch area', from: 8, to: DEFAULT_SCRATCH },
      { name: 'memory above the scratch area', from: DEFAULT_SCRATCH + SCRATCH.END, to: STATIC_BYTES },
      { name: 'free memory', from: Math.max(...guards.map(({ to }) => to)), to: arena.bytes },
    ];
    this.#idle = [...rest, ...named(NOBODY)];
    const end = 1 << 30;
    // Of the ring that the peer writes, a reader may write its read index and its interrupt mask; of its own, not the
    // read index.
    const reading = (ring: string) => [part(ring, 0, 4), part(ring, 12, end)];
    const writing = (ring: string) => [part(ring, 4, 8), part(ring, 16, CONTROL)];
    this.#forbidden = {
      guest: [...guards, ...named(HOST), ...reading('host ring'), ...writing('guest ring')],
      host: [...guards, ...named(GUEST), ...reading('guest ring'), ...writing('host ring')],
    };
    this.#copy = new Uint8Array(arena.bytes);
    this.#before = new Uint8Array(arena.bytes);
    for (const { from, to } of this.#idle) this.#before.set(arena.u8.subarray(from, to), from);
  }

  /** What nobody may write is looked at once, at the end. */
  close(): void {
    this.#unchanged(this.#idle, this.#before, 'somebody');
    this.rig.close();
  }

  /** Runs a call of `side`; fails when it wrote elsewhere. */
  call<T>(side: Side, what: string, run: () => T): T {
    for (const { from, to } of this.#forbidden[side]) this.#copy.set(this.arena.u8.subarray(from, to), from);
    const result = run();
    this.#unchanged(this.#forbidden[side], this.#copy, what);
    return result;
  }

  #unchanged(spans: readonly Span[], copy: Uint8Array, who: string): void {
    const { u8 } = this.arena;
    for (const { name, from, to } of spans) {
      if (Buffer.compare(u8.subarray(from, to), copy.subarray(from, to)) === 0) continue;
      let at = from;
      while (u8[at] === copy[at]) at++;
      assert.fail(`${who} wrote outside: ${name}, offset ${at - from} (address ${at})`);
    }
  }

  /** What was received or sent must not hold bytes of a guard. */
  noLeak(what: string, at: number, bytes: number): void {
    const found = Buffer.from(this.arena.u8.slice(at, at + bytes)).indexOf(LEAK);
    assert.ok(found < 0, `${what}: byte ${found} and on come from behind a region`);
  }

  guest(name: keyof typeof GUEST_QUEUE.at): number {
    return this.arena.u32[(this.rig.queue + GUEST_QUEUE.at[name]) >>> 2]!;
  }

  host(name: keyof typeof HOST_CHANNEL.at): number {
    return this.arena.u32[(this.rig.channel + HOST_CHANNEL.at[name]) >>> 2]!;
  }

  setGuest(name: keyof typeof GUEST_QUEUE.at, value: number): void {
    this.arena.u32[(this.rig.queue + GUEST_QUEUE.at[name]) >>> 2] = value;
  }

  setHost(name: keyof typeof HOST_CHANNEL.at, value: number): void {
    this.arena.u32[(this.rig.channel + HOST_CHANNEL.at[name]) >>> 2] = value;
  }

  /** All buffers of a pool are on its stack, each once. */
  poolWhole(pool: number, name: string): void {
    const cell = (at: number) => this.arena.u32[(pool + at) >>> 2]!;
    const stack = cell(POOL.at.stack) >>> 2;
    const handles = this.arena.u32.subarray(stack, stack + cell(POOL.at.free));
    assert.equal(handles.length, cell(POOL.at.count), `${name} pool: buffers that are back`);
    assert.equal(new Set(handles).size, handles.length, `${name} pool: a buffer is on the stack twice`);
  }
}
