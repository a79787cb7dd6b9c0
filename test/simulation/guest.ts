// A guest of the simulation: the driver, an application that sends numbered packets through it and checks what comes,
// and the orders that its owner gives.
import { createGuestNic, type GuestNic } from '../../src/apps/guest-nic.js';
import type { Datapath } from '../../src/datapath/datapath.js';
import type { Arena } from '../../src/memory/arena.js';
import { MBUF, PACKET_FLAG } from '../../src/memory/layout.js';
import { HEADROOM, poolFree, smallRoom } from '../../src/memory/pool.js';
import type { NetvscOptions } from '../../src/netvsc/types.js';
import type { VmbusDevice } from '../../src/vmbus/device.js';
import { SleepState } from './actor.js';
import type { Ledger } from './ledger.js';
import { l4Offset, type Packet, sentFrame } from './packets.js';

const BURST = 32;

export interface GuestOptions extends NetvscOptions {
  readonly name: string;
  readonly arena: Arena;
  readonly datapath: Datapath;
  readonly device: VmbusDevice;
  readonly ledger: Ledger;
  readonly random: () => number;
  readonly smallCount: number;
  readonly largeCount: number;
  /** Queue on which it sends and receives, as far as there is one: packets of one sender have to stay in order. */
  readonly ownQueue?: number;
  /** Who has this address, and whether it answers instead of sending. */
  readonly stationOf: (mac: string) => string;
  readonly log: (what: string) => void;
}

export interface Outgoing {
  readonly packet: Packet;
  readonly to: string;
}

export class SimulatedGuest {
  readonly name: string;
  readonly nic: GuestNic;
  readonly sleep = new SleepState();
  /** Packets that the application wants to send. */
  readonly queue: Outgoing[] = [];
  /** What the owner ordered last, until it is done; at most one at a time. */
  order: string | undefined;
  /** Link as the last event said. */
  linkUp = true;
  readonly #options: GuestOptions;
  readonly #arena: Arena;
  readonly #handles: number;
  /** Arena regions that the driver holds. */
  readonly #held = new Set<number>();
  #idle = false;
  #refused = false;
  #dead = false;

  constructor(options: GuestOptions) {
    const { name, arena, datapath, smallCount, largeCount } = options;
    this.#options = options;
    this.#arena = arena;
    this.name = name;
    // What a process that dies held goes with it; in one arena somebody must know what that was.
    const held = this.#held;
    const own: Arena = Object.create(arena, {
      reserve: {
        value: (what: string, bytes: number, align?: number) => {
          const address = arena.reserve(what, bytes, align);
          held.add(address);
          return address;
        },
      },
      release: {
        value: (address: number) => {
          arena.release(address);
          held.delete(address);
        },
      },
    });
    const device: VmbusDevice = Object.create(options.device, { arena: { value: own } });
    this.nic = createGuestNic(own, datapath, device, {
      ...pick(options),
      smallCount,
      largeCount,
      onEvent: (event) => {
        options.log(`${name} event ${event.type}`);
        if (event.type === 'link') this.linkUp = event.up;
      },
    });
    this.#handles = own.reserve('simulated guest handles', BURST * 4);
    void this.nic.device.setRss({ table: [options.ownQueue ?? 0] });
  }

  get running(): boolean {
    return this.nic.device.state === 'running';
  }

  /** Something of what it should do is not done. */
  get unfinished(): string | undefined {
    if (this.order !== undefined) {
      const { device } = this.nic;
      const { txOutstanding, requestsWaiting } = device.stats();
      const waits = `${device.state}, ${requestsWaiting} requests and ${txOutstanding} sends wait`;
      return `${this.name}: ${this.order} did not settle (${waits})`;
    }
    if (this.running && this.queue.length > 0) return `${this.name}: ${this.queue.length} packets wait to be sent`;
    return undefined;
  }

  /** Gives an order; another one must not be under way. `failed` says whether a rejection is in order. */
  command(what: string, run: () => Promise<unknown>, failed: (error: Error) => void): void {
    this.order = what;
    this.sleep.order();
    this.sleep.wake(this.nic.device);
    this.#options.log(`${this.name} ${what}`);
    run()
      .then(
        () => 'done',
        (error: Error) => {
          if (!this.#dead) failed(error);
          return `failed: ${error.message}`;
        },
      )
      .then((how) => {
        if (this.#dead) return;
        this.#options.log(`${this.name} ${what} ${how}`);
        this.order = undefined;
        this.sleep.order();
      });
  }

  /** One turn: polls, sends, keeps time or goes to sleep. */
  step(nowMs: number): void {
    const { random } = this.#options;
    const { device } = this.nic;
    if (!this.sleep.awake(device)) {
      if (random() < 0.1) device.tick(nowMs);
      return;
    }
    const choice = random();
    if (choice < 0.45) this.#poll(1 + Math.floor(random() * BURST));
    else if (choice < 0.7) this.#send(1 + Math.floor(random() * BURST));
    else if (choice < 0.8) device.tick(nowMs);
    else if ((this.#idle || random() < 0.3) && (this.queue.length === 0 || this.#refused || !this.running)) {
      this.sleep.trySleep(device);
      if (this.sleep.asleep) this.#options.log(`${this.name} sleeps`);
      else this.#idle = false;
    }
  }

  /** Nothing may be held by anybody any more. */
  checkIdle(): void {
    const { device, smallPool, largePool } = this.nic;
    const { smallCount, largeCount } = this.#options;
    const small = poolFree(this.#arena, smallPool);
    const large = poolFree(this.#arena, largePool);
    const fail = (what: string): never => {
      throw new Error(`${this.name} (${device.state}): ${what}`);
    };
    if (small !== smallCount) fail(`${smallCount - small} of ${smallCount} small buffers are missing`);
    if (large !== largeCount) fail(`${largeCount - large} of ${largeCount} large buffers are missing`);
    const stats = device.stats();
    for (const cell of ['txOutstanding', 'requestsWaiting'] as const) {
      if (stats[cell] !== 0) fail(`${cell} is ${stats[cell]}`);
    }
    for (const [counter, value] of Object.entries(stats)) {
      // A packet whose buffers ran out in the middle leaves fragments without a first one.
      if (counter === 'rxBadCoalescing' && (stats.rxNoMbuf ?? 0) + (stats.rxTooBig ?? 0) > 0) continue;
      if (/^rxBad|^bad|txFailed|Unknown|unexpected|mismatched|Timeouts|answersDropped/.test(counter) && value !== 0) {
        fail(`${counter} is ${value}`);
      }
    }
  }

  /** Packets that this guest's counters say were dropped. */
  drops(): number {
    const { txTooBig, rxNoMbuf, rxTooBig, txFailed } = this.nic.device.stats();
    return txTooBig! + rxNoMbuf! + rxTooBig! + txFailed!;
  }

  /** After bus.killGuest(): the process and all it held are gone. */
  forget(): void {
    this.#dead = true;
    for (const address of this.#held) this.#arena.release(address);
    this.#held.clear();
  }

  /** Gives everything back; the device must be detached. */
  close(): void {
    this.nic.close();
    this.#dead = true;
    for (const address of this.#held) this.#arena.release(address);
    this.#held.clear();
  }

  #poll(max: number): void {
    this.sleep.looked();
    this.#idle = true;
    this.#refused = false;
    for (let queue = 0; queue < (this.#options.queues ?? 1); queue++) this.#pollQueue(queue, max);
  }

  #pollQueue(queue: number, max: number): void {
    const { datapath, ledger, log, stationOf } = this.#options;
    const count = this.nic.device.poll(this.#handles, max, queue);
    if (count > 0) this.#idle = false;
    if (count > 0) log(`${this.name} received ${count}`);
    for (let i = 0; i < count; i++) {
      const mbuf = this.#arena.u32[(this.#handles >>> 2) + i]!;
      const at = this.#cell(mbuf, MBUF.at.data);
      const frame = this.#arena.u8.slice(at, at + this.#cell(mbuf, MBUF.at.dataLength));
      if (this.#cell(mbuf, MBUF.at.next) !== 0) throw new Error(`${this.name}: received a chain`);
      if (this.#cell(mbuf, MBUF.at.packetLength) !== frame.length)
        throw new Error(`${this.name}: packetLength is wrong`);
      const flags = this.#cell(mbuf, MBUF.at.flags);
      if ((flags & (PACKET_FLAG.RX_L4_BAD | PACKET_FLAG.RX_IP_BAD)) !== 0)
        throw new Error(`${this.name}: bad checksum`);
      const tci = (flags & PACKET_FLAG.VLAN) !== 0 ? this.#cell(mbuf, MBUF.at.vlanTci) : undefined;
      const sender = stationOf(Buffer.from(frame.subarray(6, 12)).toString('hex'));
      const unfinished = (flags & PACKET_FLAG.TX_TCP_CHECKSUM) !== 0;
      const told = sender === 'echo' ? stationOf(Buffer.from(frame.subarray(0, 6)).toString('hex')) : undefined;
      ledger.arrived(this.name, sender, frame, tci, unfinished, told);
    }
    datapath.mbufFree(this.#handles, count);
  }

  #send(most: number): void {
    if (!this.running) {
      // An application finds its interface down.
      this.queue.length = 0;
      return;
    }
    const { datapath, log, ledger } = this.#options;
    let built = 0;
    while (built < Math.min(most, this.queue.length)) {
      const mbuf = this.#build(this.queue[built]!.packet);
      if (mbuf === 0) break;
      this.#arena.u32[(this.#handles >>> 2) + built++] = mbuf;
    }
    if (built === 0) return;
    const { device } = this.nic;
    const taken = device.send(this.#handles, built, (this.#options.ownQueue ?? 0) % device.info!.queues);
    datapath.mbufFree(this.#handles + taken * 4, built - taken);
    for (const { packet, to } of this.queue.splice(0, taken)) ledger.sent({ packet, from: this.name, to });
    this.#refused = taken < built;
    this.#idle = false;
    log(`${this.name} sent ${taken} of ${built}`);
  }

  /** The packet in one buffer or a chain; 0 = no buffer is free. */
  #build(packet: Packet): number {
    const { datapath, random } = this.#options;
    const { u32, u8 } = this.#arena;
    const frame = sentFrame(packet);
    const room = smallRoom(0) - HEADROOM;
    const large = frame.length > room;
    const first = large || frame.length < 200 || random() < 0.8 ? frame.length : 128 + Math.floor(random() * 64);
    const lengths = first === frame.length ? [first] : [first, frame.length - first];
    const scratch = this.#handles + (BURST - 2) * 4;
    const kept = u32.slice(scratch >>> 2, (scratch >>> 2) + 2);
    const got = datapath.poolGet(large ? this.nic.largePool : this.nic.smallPool, scratch, lengths.length);
    const mbufs = [...u32.slice(scratch >>> 2, (scratch >>> 2) + got)];
    if (got < lengths.length) datapath.mbufFree(scratch, got);
    u32.set(kept, scratch >>> 2);
    if (got < lengths.length) return 0;
    let at = 0;
    mbufs.forEach((mbuf, i) => {
      u8.set(frame.subarray(at, at + lengths[i]!), this.#cell(mbuf, MBUF.at.data));
      at += lengths[i]!;
      u32[(mbuf + MBUF.at.dataLength) >>> 2] = lengths[i]!;
      u32[(mbuf + MBUF.at.next) >>> 2] = mbufs[i + 1] ?? 0;
    });
    const head = mbufs[0]!;
    const set = (cell: keyof typeof MBUF.at, value: number) => {
      u32[(head + MBUF.at[cell]) >>> 2] = value;
    };
    let flags = packet.kind === 'raw' ? 0 : packet.v6 ? PACKET_FLAG.IPV6 : PACKET_FLAG.IPV4;
    if (packet.kind === 'udp') flags |= PACKET_FLAG.UDP;
    else if (packet.kind !== 'raw') flags |= PACKET_FLAG.TCP;
    if (packet.unfinished && packet.kind !== 'raw') {
      flags |= packet.kind === 'udp' ? PACKET_FLAG.TX_UDP_CHECKSUM : PACKET_FLAG.TX_TCP_CHECKSUM;
      if (!packet.v6) flags |= PACKET_FLAG.TX_IP_CHECKSUM;
      set('l4Offset', l4Offset(packet) + (packet.tci !== undefined && packet.tagInData ? 4 : 0));
    }
    if (packet.kind === 'tso') {
      flags |= PACKET_FLAG.TX_TSO;
      set('l4Offset', l4Offset(packet));
      set('mss', packet.mss);
    }
    if (packet.tci !== undefined && !packet.tagInData) {
      flags |= PACKET_FLAG.VLAN;
      set('vlanTci', packet.tci);
    }
    set('flags', flags);
    set('packetLength', frame.length);
    set('segments', lengths.length);
    return head;
  }

  #cell(address: number, offset: number): number {
    return this.#arena.u32[(address + offset) >>> 2]!;
  }
}

function pick(options: GuestOptions): NetvscOptions {
  const { mtu, copyLimit, rsc, nvspVersions, queues } = options;
  return {
    ...(queues === undefined ? {} : { queues }),
    ...(mtu === undefined ? {} : { mtu }),
    ...(copyLimit === undefined ? {} : { copyLimit }),
    ...(rsc === undefined ? {} : { rsc }),
    ...(nvspVersions === undefined ? {} : { nvspVersions }),
  };
}
