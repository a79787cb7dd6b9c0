// Mbuf chains against a model: any order of what a program does to packets. No mbuf is lost, none is given out twice, every byte is
// where it should be.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createDatapath } from '../datapath/datapath.js';
import { Arena } from '../memory/arena.js';
import { MBUF, PACKET_FLAG } from '../memory/layout.js';
import { EXTERNAL_MAX, MBUFS_BYTES, Mbufs } from './mbuf.js';
import { Mempool } from './mempool.js';

const COUNT = 24;
const ROOM = 192;
const HEADROOM = 64;
const EXTERNAL_BYTES = 300;

const arena = Arena.create({ bytes: 8 << 20 });
const datapath = createDatapath(arena.memory);

function world(lcores = 1): { pool: Mempool; mbufs: Mbufs; release(): void } {
  const options = { count: COUNT, room: ROOM, headroom: HEADROOM, cache: 4 };
  const buffers = arena.reserve('buffers', Mempool.bytes(options));
  const cells = arena.reserve('mbufs', MBUFS_BYTES);
  const pool = new Mempool(arena, 'mbufs', buffers, options, lcores);
  const release = () => {
    pool.release();
    for (const address of [buffers, cells]) arena.release(address);
  };
  return { pool, mbufs: new Mbufs(arena, datapath, cells), release };
}

/** Bytes that several mbufs may show. */
interface Data {
  /** Mbufs that show it, references of packets not counted. */
  users: number;
  external?: { freed: number };
}

/** A packet as it should be: parts of segments, in order. */
interface Model {
  readonly mbuf: number;
  parts: { bytes: number[]; readonly data: Data }[];
  references: number;
  cells: { flags: number; hash: number; tci: number };
}

const bytesOf = (model: Model) => model.parts.flatMap(({ bytes }) => bytes);
const isShared = (model: Model) => model.parts.some(({ data }) => data.users > 1);
const isBorrowed = ({ data }: Model['parts'][number]) => data.external !== undefined;

/** What is done, to the packets that two numbers choose. */
type Step = readonly [what: string, a: number, b: number, size: number];
const WHAT = [
  ...['allocate', 'allocate', 'write', 'write', 'prepend', 'adjust', 'trim', 'chain', 'clone', 'copy', 'reference'],
  ...['free', 'free', 'external', 'cells', 'reap'],
];
const step: fc.Arbitrary<Step> = fc.tuple(fc.constantFrom(...WHAT), fc.nat(30), fc.nat(30), fc.nat(150));

class Run {
  readonly #world = world();
  readonly #packets: Model[] = [];
  readonly #externals: { freed: number; address: number }[] = [];
  #next = 0;

  play(steps: readonly Step[]): void {
    for (const [what, a, b, size] of steps) {
      this.#do(what, this.#pick(a), this.#pick(b), size);
      this.#check();
    }
    for (const packet of [...this.#packets]) while (this.#packets.includes(packet)) this.#free(packet);
    this.#world.mbufs.reap();
    for (const { freed } of this.#externals) assert.equal(freed, 1, 'an external buffer did not come back once');
    const { pool, mbufs } = this.#world;
    assert.equal(pool.available, COUNT, 'mbufs are missing');
    const all = Array.from({ length: COUNT }, () => mbufs.allocate(pool));
    assert.equal(new Set(all).size, COUNT, 'an mbuf is given out twice');
    assert.ok(!all.includes(0));
    assert.equal(mbufs.allocate(pool), 0);
    for (const mbuf of all) {
      assert.equal(mbufs.headroom(mbuf), HEADROOM);
      assert.equal(mbufs.tailroom(mbuf), ROOM - HEADROOM);
      assert.deepEqual(
        [mbufs.flags(mbuf), mbufs.references(mbuf), mbufs.segments(mbuf), mbufs.next(mbuf)],
        [0, 1, 1, 0],
      );
      mbufs.free(mbuf);
    }
    for (const { address } of this.#externals) arena.release(address);
    this.#world.release();
  }

  #pick(n: number): Model | undefined {
    return this.#packets[n % Math.max(1, this.#packets.length)];
  }

  #fresh(size: number): number[] {
    return Array.from({ length: size }, () => this.#next++ & 255);
  }

  #do(what: string, packet: Model | undefined, other: Model | undefined, size: number): void {
    const { pool, mbufs } = this.#world;
    if (what === 'allocate') {
      const free = pool.available;
      const mbuf = mbufs.allocate(pool);
      assert.equal(mbuf !== 0, free > 0);
      if (mbuf !== 0) this.#add(mbuf, [{ bytes: [], data: { users: 1 } }]);
    } else if (what === 'reap') mbufs.reap();
    else if (what === 'external') this.#external(size);
    else if (packet === undefined) return;
    else if (what === 'write') this.#write(packet, size);
    else if (what === 'prepend') this.#prepend(packet, size);
    else if (what === 'adjust') {
      const { bytes } = packet.parts[0]!;
      assert.equal(mbufs.adjust(packet.mbuf, size), size <= bytes.length);
      if (size <= bytes.length) bytes.splice(0, size);
    } else if (what === 'trim') {
      const { bytes } = packet.parts.at(-1)!;
      assert.equal(mbufs.trim(packet.mbuf, size), size <= bytes.length);
      if (size <= bytes.length) bytes.length -= size;
    } else if (what === 'chain') this.#chain(packet, other!);
    else if (what === 'clone') this.#clone(packet);
    else if (what === 'copy') this.#copy(packet);
    else if (what === 'reference') {
      mbufs.reference(packet.mbuf);
      packet.references++;
    } else if (what === 'free') this.#free(packet);
    else if (what === 'cells') {
      packet.cells = { flags: PACKET_FLAG.HASH, hash: size * 7, tci: size };
      // Flags that say whose the data are stay.
      const keep = mbufs.flags(packet.mbuf) & (PACKET_FLAG.EXTERNAL | PACKET_FLAG.INDIRECT);
      mbufs.setFlags(packet.mbuf, keep | PACKET_FLAG.HASH);
      mbufs.setHash(packet.mbuf, size * 7);
      mbufs.setVlanTci(packet.mbuf, size);
    }
  }

  #add(mbuf: number, parts: Model['parts'], cells = { flags: 0, hash: 0, tci: 0 }): void {
    this.#packets.push({ mbuf, parts, references: 1, cells: { ...cells } });
  }

  /** Who shares bytes does not write to them. */
  #write(packet: Model, size: number): void {
    const last = packet.parts.at(-1)!;
    if (last.data.users > 1) return;
    const { mbufs } = this.#world;
    const fits = size <= mbufs.tailroom(mbufs.last(packet.mbuf));
    const bytes = this.#fresh(size);
    assert.equal(mbufs.write(packet.mbuf, Uint8Array.from(bytes)), fits);
    if (fits) last.bytes.push(...bytes);
  }

  #prepend(packet: Model, size: number): void {
    const [first] = packet.parts;
    if (first!.data.users > 1) return;
    const { mbufs } = this.#world;
    const fits = size <= mbufs.headroom(packet.mbuf);
    const at = mbufs.prepend(packet.mbuf, size);
    assert.equal(at !== 0, fits);
    if (!fits) return;
    const bytes = this.#fresh(size);
    arena.u8.set(bytes, at);
    first!.bytes.unshift(...bytes);
  }

  #chain(head: Model, tail: Model): void {
    if (head === tail || head.references > 1 || tail.references > 1) return;
    this.#world.mbufs.chain(head.mbuf, tail.mbuf);
    head.parts.push(...tail.parts);
    this.#packets.splice(this.#packets.indexOf(tail), 1);
  }

  #clone(packet: Model): void {
    const { pool, mbufs } = this.#world;
    const enough = pool.available >= packet.parts.length;
    const mbuf = mbufs.clone(pool, packet.mbuf);
    assert.equal(mbuf !== 0, enough);
    if (mbuf === 0) return;
    for (const { data } of packet.parts) data.users++;
    const parts = packet.parts.map(({ bytes, data }) => ({ bytes: [...bytes], data }));
    this.#add(mbuf, parts, packet.cells);
  }

  #copy(packet: Model): void {
    const { pool, mbufs } = this.#world;
    const bytes = bytesOf(packet);
    const fits = pool.available > 0 && bytes.length <= ROOM - HEADROOM;
    const mbuf = mbufs.copy(pool, packet.mbuf);
    assert.equal(mbuf !== 0, fits);
    if (mbuf !== 0) this.#add(mbuf, [{ bytes, data: { users: 1 } }], packet.cells);
  }

  #external(size: number): void {
    const { pool, mbufs } = this.#world;
    const mbuf = mbufs.allocate(pool);
    if (mbuf === 0) return;
    const external = { freed: 0, address: arena.reserve('external', EXTERNAL_BYTES) };
    this.#externals.push(external);
    const bytes = this.#fresh(size);
    arena.u8.set(bytes, external.address);
    assert.ok(mbufs.attachExternal(mbuf, external.address, size, () => external.freed++));
    this.#add(mbuf, [{ bytes, data: { users: 1, external } }]);
  }

  #free(packet: Model): void {
    this.#world.mbufs.free(packet.mbuf);
    if (--packet.references > 0) return;
    this.#packets.splice(this.#packets.indexOf(packet), 1);
    for (const { data } of packet.parts) data.users--;
  }

  #check(): void {
    const { mbufs } = this.#world;
    for (const packet of this.#packets) {
      assert.deepEqual([...mbufs.read(packet.mbuf)], bytesOf(packet));
      assert.equal(mbufs.segments(packet.mbuf), packet.parts.length);
      let segment = packet.mbuf;
      for (const part of packet.parts) {
        assert.equal(mbufs.dataLength(segment), part.bytes.length);
        const borrowed = (mbufs.flags(segment) & PACKET_FLAG.EXTERNAL) !== 0;
        assert.equal(borrowed, isBorrowed(part));
        segment = mbufs.next(segment);
      }
      assert.equal(segment, 0);
      assert.equal(mbufs.hash(packet.mbuf), packet.cells.hash);
      assert.equal(mbufs.vlanTci(packet.mbuf), packet.cells.tci);
      // References of mbufs that show the same data count too.
      assert.ok(mbufs.references(packet.mbuf) >= packet.references);
      if (!isShared(packet)) assert.equal(mbufs.references(packet.mbuf), packet.references);
    }
    for (const { freed } of this.#externals) assert.ok(freed <= 1, 'an external buffer came back twice');
  }
}

test('any order of allocate, write, prepend, adjust, trim, chain, clone, copy, reference, free', () => {
  const before = arena.regions().length;
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => new Run().play(steps)),
    { numRuns: 500 },
  );
  assert.equal(arena.regions().length, before);
});

test('external buffers: no more than there are cells for, and each callback once', () => {
  const { pool, mbufs, release } = world();
  const memory = arena.reserve('external', 64);
  let mbuf = mbufs.allocate(pool);
  let freed = 0;
  for (let i = 0; i < EXTERNAL_MAX + 10; i++) {
    assert.ok(mbufs.attachExternal(mbuf, memory, 64, () => freed++));
    const clone = mbufs.clone(pool, mbuf);
    mbufs.free(mbuf);
    assert.equal(mbufs.reap(), 0); // the clone shows it still
    mbufs.free(clone);
    mbuf = mbufs.allocate(pool);
    assert.equal(mbufs.reap(), 1);
  }
  assert.equal(freed, EXTERNAL_MAX + 10);
  // All cells out at once.
  const held: number[] = [];
  const small = { count: EXTERNAL_MAX + 1, room: 128, headroom: 0 };
  const buffers = arena.reserve('buffers', Mempool.bytes(small));
  const many = new Mempool(arena, 'many', buffers, small, 1);
  for (let i = 0; i < EXTERNAL_MAX; i++) {
    held.push(mbufs.allocate(many));
    assert.ok(mbufs.attachExternal(held[i]!, memory, 64, () => freed++));
  }
  const last = mbufs.allocate(many);
  assert.equal(
    mbufs.attachExternal(last, memory, 64, () => freed++),
    false,
  );
  for (const one of held) mbufs.free(one);
  assert.equal(mbufs.reap(), EXTERNAL_MAX);
  assert.ok(mbufs.attachExternal(last, memory, 64, () => freed++));
  for (const one of [last, mbuf]) mbufs.free(one);
  mbufs.reap();
  assert.equal(many.available, many.count);
  assert.equal(pool.available, pool.count);
  many.release();
  for (const address of [buffers, memory]) arena.release(address);
  release();
});

test('a fresh mbuf knows nothing of its last packet', () => {
  const { pool, mbufs, release } = world();
  const mbuf = mbufs.allocate(pool);
  mbufs.chain(mbuf, mbufs.allocate(pool));
  for (let cell: number = MBUF.at.flags; cell <= MBUF.at.l4Offset; cell += 4)
    if (cell !== MBUF.at.flags) arena.u32[(mbuf + cell) >>> 2] = 0xffff_ffff;
  mbufs.setFlags(mbuf, PACKET_FLAG.HASH | PACKET_FLAG.VLAN | PACKET_FLAG.TX_TSO);
  mbufs.free(mbuf);
  for (const again of [mbufs.allocate(pool), mbufs.allocate(pool)]) {
    for (let cell: number = MBUF.at.flags; cell <= MBUF.at.l4Offset; cell += 4)
      assert.equal(arena.u32[(again + cell) >>> 2], 0);
    assert.deepEqual([mbufs.dataLength(again), mbufs.packetLength(again), mbufs.next(again)], [0, 0, 0]);
    mbufs.free(again);
  }
  release();
});
