// One run: a random machine, rounds of traffic and trouble, and after each round everything at rest and accounted for.
import { createHash } from 'node:crypto';
import type { Datapath } from '../../src/datapath/datapath.js';
import { PROFILE_NAMES } from '../../src/host/profiles.js';
import type { Arena } from '../../src/memory/arena.js';
import { Simulator } from '../../src/vmbus/memory/simulator.js';
import { PACKET_FILTER } from '../../src/wire/oid.js';
import type { SimulatedGuest } from './guest.js';
import { type GuestPlan, Machine, type MachinePlan } from './machine.js';
import { leastBytes, type Packet, type PacketKind } from './packets.js';

const ROUNDS = 3;
/** Turns of a round, before everything has to come to rest. */
const ROUND_TURNS = 500;
/** Longest rest: beyond the driver's own deadline for a host that reads no more (200 ms). */
const REST_MS = 400;
const TRACE_LINES = 60;
const BROADCAST = new Uint8Array(6).fill(0xff);
const NORMAL = PACKET_FILTER.DIRECTED | PACKET_FILTER.ALL_MULTICAST | PACKET_FILTER.BROADCAST;
const FILTERS = [0, PACKET_FILTER.DIRECTED, ...new Array(7).fill(NORMAL), NORMAL | PACKET_FILTER.PROMISCUOUS];
const MTUS = [576, 1500, 1500, 4000, 9000];

export interface RunResult {
  readonly hash: string;
  readonly delivered: number;
  readonly dropped: number;
  readonly turns: number;
  readonly sleeps: number;
  /** Counts of what happened, by name. */
  readonly happened: ReadonlyMap<string, number>;
}

/** Runs a seed. Throws with the seed and the last actions. */
export async function runSeed(seed: number, arena: Arena, datapath: Datapath): Promise<RunResult> {
  return new Run(seed, arena, datapath).run();
}

class Run {
  readonly #simulator: Simulator;
  readonly #machine: Machine;
  readonly #random: () => number;
  readonly #hash = createHash('sha256');
  readonly #trace: string[] = [];
  readonly #happened = new Map<string, number>();
  readonly #before: string;
  readonly #arena: Arena;
  readonly #seed: number;
  #unexpected: Error | undefined;

  constructor(seed: number, arena: Arena, datapath: Datapath) {
    this.#seed = seed;
    this.#arena = arena;
    this.#before = regions(arena);
    this.#simulator = new Simulator({ seed });
    const { random } = this.#simulator;
    this.#random = random;
    const log = (what: string) => this.#log(what);
    const plan = this.#plan();
    this.#log(JSON.stringify(plan));
    this.#machine = new Machine(plan, { arena, datapath, random, log });
    this.#simulator.add('host', (now) => this.#machine.hostStep(now), 2);
    plan.guests.forEach((_, i) => {
      this.#simulator.add(`guest${i}`, (now) => this.#machine.guests[i]!.step(now), 2);
    });
  }

  async run(): Promise<RunResult> {
    const machine = this.#machine;
    let sleeps = 0;
    try {
      for (const guest of machine.guests) this.#attach(guest);
      await this.#rest();
      for (let round = 0; round < ROUNDS; round++) {
        const remove = [
          this.#simulator.add('traffic', () => this.#traffic(), 1),
          this.#simulator.add('trouble', () => this.#trouble(), 0.15),
        ];
        const end = this.#simulator.turns + ROUND_TURNS;
        while (this.#simulator.turns < end) await this.#turn();
        for (const gone of remove) gone();
        await this.#rest();
        sleeps += machine.hostSleep.sleeps;
        if (machine.hostDead) {
          machine.renew();
          this.#log('a new machine');
        }
        for (const guest of machine.guests) {
          if (!guest.running) this.#attach(guest);
          else
            guest.command(
              'filter again',
              () => guest.nic.device.setPacketFilter(NORMAL),
              () => {},
            );
        }
        for (const nic of machine.host.nics) machine.orderHost(() => nic.setLink(true));
        machine.orderHost(() => {
          machine.sink.linkUp = true;
        });
        await this.#rest();
      }
      for (const guest of machine.guests)
        guest.command(
          'detach',
          () => guest.nic.device.detach(),
          () => {},
        );
      await this.#rest();
      machine.close();
      const after = regions(this.#arena);
      if (after !== this.#before) throw new Error(`arena regions are left:\n${after}\nbefore:\n${this.#before}`);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      const tail = this.#trace.slice(-TRACE_LINES).join('\n  ');
      throw new Error(`seed ${this.#seed}: ${why}\nlast actions:\n  ${tail}`, { cause: error });
    }
    return {
      hash: this.#hash.digest('hex'),
      delivered: machine.ledger.delivered,
      dropped: machine.ledger.dropped,
      turns: this.#simulator.turns,
      sleeps,
      happened: this.#happened,
    };
  }

  async #turn(): Promise<void> {
    this.#simulator.turn();
    // Code that waited for a promise runs before its thread goes on.
    if (this.#machine.guests.some((guest) => guest.order !== undefined)) await new Promise(setImmediate);
    if (this.#unexpected) throw this.#unexpected;
  }

  /** Until everybody sleeps and nothing is left to do; what is left then was forgotten by somebody. */
  async #rest(): Promise<void> {
    const machine = this.#machine;
    const endMs = this.#simulator.nowMs + REST_MS;
    while (!(machine.allAsleep && machine.unfinished() === undefined)) {
      if (this.#simulator.nowMs >= endMs) {
        const awake = machine.guests.filter((guest) => !guest.sleep.atRest).map((guest) => guest.name);
        if (!machine.hostDead && !machine.hostSleep.atRest) awake.push('host');
        throw new Error(
          awake.length === 0
            ? `a wake-up was lost, all sleep: ${machine.unfinished()}`
            : `no rest after ${REST_MS} ms: ${awake.join(', ')} awake; ${machine.unfinished() ?? 'all is done'}`,
        );
      }
      await this.#turn();
    }
    await new Promise(setImmediate);
    if (this.#unexpected) throw this.#unexpected;
    machine.check();
    if (machine.host.state().nics.some(({ guestPages }) => guestPages.copies > 0)) this.#happen('memory copied');
    this.#log('at rest');
  }

  #plan(): MachinePlan {
    const kib = (...list: number[]) => this.#one(list) << 10;
    return {
      profile: this.#one(PROFILE_NAMES),
      guests: Array.from({ length: 2 + this.#below(3) }, () => this.#guestPlan()),
      ringBytes: kib(16, 32, 64, 256),
      // The host wants at least 17 suballocations, of up to 9306 bytes.
      receiveBytes: kib(192, 256, 1024),
      sendBytes: kib(96, 256),
    };
  }

  #guestPlan(): GuestPlan {
    return {
      smallCount: this.#one([16, 64, 256]),
      largeCount: this.#one([2, 8]),
      rsc: this.#random() < 0.7,
      ...(this.#random() < 0.5 ? { queues: 2 + this.#below(3), ownQueue: this.#below(4) } : {}),
      ...(this.#random() < 0.3 ? { copyLimit: this.#one([0, 200, 1000]) } : {}),
      unmappable: this.#random() < 0.3,
    };
  }

  #attach(guest: SimulatedGuest): void {
    guest.command(
      'attach',
      async () => {
        const { queues } = await guest.nic.device.attach();
        if (queues > 1) this.#happen('several queues');
      },
      (error) => this.#rejected(guest, error),
    );
  }

  /** A promise may only be broken by the host's end, or by an MTU that this host does not take. */
  #rejected(guest: SimulatedGuest, error: Error): void {
    if (this.#machine.hostDead || /MTU/.test(error.message)) return;
    this.#unexpected ??= new Error(`${guest.name}: ${error.message}`, { cause: error });
  }

  #traffic(): void {
    const machine = this.#machine;
    const source = this.#below(machine.guests.length + 1);
    const guest = machine.guests[source];
    const queue = guest?.queue ?? machine.sink.queue;
    if (queue.length > 64 || (guest !== undefined && !guest.running) || (!guest && machine.hostDead)) return;
    const from = guest ? machine.mac(source) : machine.sink.macs[0]!;
    const to = this.#destination(source);
    const burst = this.#random() < 0.2 ? 24 : 1 + this.#below(4);
    for (let i = 0; i < burst; i++) queue.push({ packet: this.#packet(from, to.mac, to.name, guest), to: to.name });
    guest?.sleep.order();
    if (!guest) machine.orderHost(() => {});
  }

  #destination(source: number): { mac: Uint8Array; name: string } {
    const machine = this.#machine;
    const choice = this.#random();
    const isSink = source === machine.guests.length;
    if (choice < 0.05) return { mac: BROADCAST, name: 'all' };
    if (choice < 0.3 && !isSink) return { mac: machine.sink.macs[0]!, name: 'sink' };
    if (choice < 0.45 && !isSink) return { mac: machine.echoMac, name: 'echo' };
    let to = this.#below(machine.guests.length - (isSink ? 0 : 1));
    if (to >= source) to++;
    return { mac: machine.mac(to), name: `guest${to}` };
  }

  #packet(from: Uint8Array, to: Uint8Array, name: string, guest: SimulatedGuest | undefined): Packet {
    const info = guest?.nic.device.info;
    const v6 = this.#random() < 0.4;
    const lsoMax = v6 ? info?.lsoMax6 : info?.lsoMax4;
    const lso = lsoMax !== undefined && lsoMax > 0 && this.#random() < 0.3;
    const kinds: readonly PacketKind[] = name === 'echo' ? ['udp'] : name === 'all' ? ['raw'] : ['raw', 'udp', 'tcp'];
    const kind: PacketKind = lso && kinds.length > 1 ? 'tso' : this.#one(kinds);
    const least = name === 'echo' ? 80 : leastBytes(kind, v6);
    const longest = kind === 'tso' ? Math.min(65_536, lsoMax!) : (info?.mtu ?? 1500) + 14;
    // Now and then one that is too long, which must be counted; short ones share sections.
    const over = kind !== 'tso' && this.#random() < 0.02 ? 100 : 0;
    const limit = this.#random() < 0.5 ? Math.min(longest, 300) : longest + over;
    const vlan = this.#random() < 0.2;
    return {
      id: this.#machine.ledger.nextId(),
      kind,
      v6,
      bytes: least + this.#below(Math.max(1, limit - least + 1)),
      tci: vlan ? (this.#below(8) << 13) | (1 + this.#below(4000)) : undefined,
      // LSO is for packets whose tag is beside them: the driver seeds fixed places of the header.
      tagInData: vlan && kind !== 'tso' && this.#random() < 0.3,
      unfinished: guest !== undefined && this.#random() < 0.5,
      mss: 500 + this.#below(900),
      from,
      to,
    };
  }

  #trouble(): void {
    const machine = this.#machine;
    const index = this.#below(machine.guests.length);
    const guest = machine.guests[index]!;
    const choice = this.#random();
    if (machine.hostDead) return;
    if (choice < 0.02) {
      this.#happen('kill host');
      machine.killHost();
    } else if (choice < 0.07) {
      this.#happen(`kill guest${index}`);
      machine.killGuest(index);
    } else if (choice < 0.3) {
      this.#happen(`link of nic${index}`);
      // Down for a short time mostly, or hardly anything would arrive.
      const up = !machine.host.nics[index]!.linkUp || this.#random() < 0.7;
      machine.orderHost(() => machine.host.nics[index]!.setLink(up));
    } else if (choice < 0.36) {
      this.#happen('link of sink');
      machine.orderHost(() => {
        machine.sink.linkUp = !machine.sink.linkUp || this.#random() < 0.7;
      });
    } else if (guest.order === undefined) this.#trouble2(guest, choice);
  }

  #trouble2(guest: SimulatedGuest, choice: number): void {
    const { device } = guest.nic;
    const rejected = (error: Error) => this.#rejected(guest, error);
    const { promiscuous } = this.#machine.ledger;
    if (!guest.running) {
      this.#happen('attach');
      this.#attach(guest);
    } else if (choice < 0.6) {
      const filter = this.#one(FILTERS);
      this.#happen('filter');
      if ((filter & PACKET_FILTER.PROMISCUOUS) !== 0) promiscuous.add(guest.name);
      guest.command(`filter ${filter}`, () => device.setPacketFilter(filter), rejected);
    } else if (choice < 0.75) {
      const mtu = this.#one(MTUS);
      this.#happen('reattach');
      guest.command(`reattach ${mtu}`, () => device.reattach({ mtu }), rejected);
    } else {
      this.#happen('detach');
      guest.command('detach', () => device.detach(), rejected);
    }
  }

  #happen(what: string): void {
    const name = what.replace(/\d/g, '');
    this.#happened.set(name, (this.#happened.get(name) ?? 0) + 1);
    this.#log(what);
  }

  #log(what: string): void {
    const line = `${this.#simulator.turns} ${what}`;
    this.#hash.update(line);
    this.#trace.push(line);
    if (this.#trace.length > 4 * TRACE_LINES) this.#trace.splice(0, 3 * TRACE_LINES);
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #one<T>(list: readonly T[]): T {
    return list[this.#below(list.length)]!;
  }
}

/** What the arena holds, as text. */
function regions(arena: Arena): string {
  return arena
    .regions()
    .map(({ name, address, bytes }) => `${name} ${address} ${bytes}`)
    .join('\n');
}
