// A whole machine on the memory backend: guests with a bus each, a host with sink and echo uplink; parts of it, or all of
// it, can go away at any time.
import type { Datapath } from '../../src/datapath/datapath.js';
import { Host } from '../../src/host/host.js';
import { nicMac } from '../../src/host/identity.js';
import type { ProfileName } from '../../src/host/profiles.js';
import { EchoUplink } from '../../src/host/uplinks/echo.js';
import type { Arena } from '../../src/memory/arena.js';
import type { NetvscOptions } from '../../src/netvsc/types.js';
import type { VmbusDevice, VmbusOffer } from '../../src/vmbus/device.js';
import { createMemoryBus, type MemoryBus } from '../../src/vmbus/memory/bus.js';
import { SleepState } from './actor.js';
import { SimulatedGuest } from './guest.js';
import { Ledger } from './ledger.js';
import { SinkUplink } from './sink.js';

const ECHO_MAC = Uint8Array.of(2, 0, 0, 0xec, 0, 9);
const NAME = 'simulation';

export interface GuestPlan extends NetvscOptions {
  readonly smallCount: number;
  readonly largeCount: number;
  readonly ownQueue?: number;
  /** The host cannot map its memory. */
  readonly unmappable?: boolean;
}

export interface MachinePlan {
  readonly profile: ProfileName;
  readonly guests: readonly GuestPlan[];
  readonly ringBytes: number;
  readonly receiveBytes: number;
  readonly sendBytes: number;
}

export interface MachineContext {
  readonly arena: Arena;
  readonly datapath: Datapath;
  readonly random: () => number;
  readonly log: (what: string) => void;
}

export class Machine {
  readonly plan: MachinePlan;
  readonly ledger = new Ledger();
  readonly hostSleep = new SleepState();
  readonly guests: SimulatedGuest[] = [];
  host!: Host;
  sink!: SinkUplink;
  /** The host is gone; guests that have not noticed fail soon. */
  hostDead = false;
  readonly #context: MachineContext;
  readonly #stations = new Map<string, string>();
  #echo!: EchoUplink;
  #buses: MemoryBus[] = [];
  #hostIdle = false;
  /** Drops that counters of former guests and hosts named. */
  #formerDrops = 0;
  #settledDrops = 0;

  constructor(plan: MachinePlan, context: MachineContext) {
    this.plan = plan;
    this.#context = context;
    plan.guests.forEach((_, index) => {
      this.#stations.set(hex(this.mac(index)), `guest${index}`);
    });
    this.#stations.set(hex(ECHO_MAC), 'echo');
    this.startHost();
    plan.guests.forEach((_, index) => {
      this.startGuest(index);
    });
  }

  mac(index: number): Uint8Array {
    return nicMac(NAME, index);
  }

  get echoMac(): Uint8Array {
    return ECHO_MAC;
  }

  /** A new host, with the same NICs. */
  startHost(): void {
    const { arena, datapath } = this.#context;
    const { plan } = this;
    this.#buses = plan.guests.map(({ unmappable = false }, index) =>
      createMemoryBus(arena, {
        ringBytes: plan.ringBytes,
        receiveBytes: plan.receiveBytes,
        sendBytes: plan.sendBytes,
        firstDevice: index,
        firstGpadl: 0xe1e10 + 2 * index,
        unmappable,
      }),
    );
    const stationOf = (mac: string) => this.#stationOf(mac);
    this.host = Host.create({
      arena,
      datapath,
      machine: NAME,
      profile: plan.profile,
      nics: plan.guests.map(() => ({})),
      offers: this.#buses.map((bus, index) => this.#offer(bus.pairs[0]!.offer, index)),
      uplinks: [
        (context) => {
          this.sink = new SinkUplink(context, this.ledger, stationOf);
          return this.sink;
        },
        (context) => {
          this.#echo = new EchoUplink({ ...context, mac: ECHO_MAC });
          return this.#echo;
        },
      ],
    });
    this.#stations.set(hex(this.sink.macs[0]!), 'sink');
    this.hostDead = false;
    this.ledger.hostDead = false;
    this.hostSleep.order();
    this.hostSleep.asleep = false;
  }

  /** A new guest process on NIC `index`; it does nothing yet. */
  startGuest(index: number): void {
    const { arena, datapath, random, log } = this.#context;
    this.guests[index] = new SimulatedGuest({
      ...this.plan.guests[index]!,
      name: `guest${index}`,
      arena,
      datapath,
      random,
      log,
      ledger: this.ledger,
      stationOf: (mac) => this.#stationOf(mac),
      device: this.#device(this.#buses[index]!.pairs[0]!.device, index),
    });
  }

  hostStep(nowMs: number): void {
    const { random, log } = this.#context;
    if (this.hostDead) return;
    if (!this.hostSleep.awake(this.host)) {
      if (random() < 0.1) this.host.tick(nowMs);
      return;
    }
    const choice = random();
    if (choice < 0.7) {
      this.hostSleep.looked();
      const work = this.host.step();
      this.#hostIdle = work === 0;
      if (work > 0) log(`host ${work}`);
    } else if (choice < 0.8) this.host.tick(nowMs);
    else if (this.#hostIdle) {
      this.hostSleep.trySleep(this.host);
      if (this.hostSleep.asleep) log('host sleeps');
      else this.#hostIdle = false;
    }
  }

  /** Something in the host's thread is changed by its owner. */
  orderHost(change: () => void): void {
    this.hostSleep.wake(this.host);
    this.hostSleep.order();
    change();
  }

  killGuest(index: number): void {
    const guest = this.guests[index]!;
    this.#formerDrops += guest.drops();
    this.ledger.excuse(guest.name);
    this.ledger.promiscuous.delete(guest.name);
    this.#buses[index]!.killGuest();
    this.hostSleep.order();
    guest.forget();
    this.startGuest(index);
  }

  /** The host's process dies: nothing of it runs any more. */
  killHost(): void {
    this.#formerDrops += this.#hostDrops();
    this.ledger.excuse();
    this.ledger.hostDead = true;
    for (const bus of this.#buses) bus.killHost();
    this.hostDead = true;
    for (const guest of this.guests) guest.sleep.order();
  }

  /** Once every guest has noticed: the remains of host and guests are removed, a new machine starts. */
  renew(): void {
    this.closeGuests();
    this.host.close();
    for (const bus of this.#buses) bus.close();
    this.ledger.promiscuous.clear();
    this.startHost();
    this.plan.guests.forEach((_, index) => {
      this.startGuest(index);
    });
  }

  closeGuests(): void {
    for (const guest of this.guests) {
      this.#formerDrops += guest.drops();
      guest.close();
    }
  }

  close(): void {
    this.closeGuests();
    this.host.close();
    for (const bus of this.#buses) bus.close();
  }

  /** What is not done although everybody sleeps, or undefined. */
  unfinished(): string | undefined {
    for (const guest of this.guests) {
      if (guest.unfinished !== undefined) return guest.unfinished;
      if (this.hostDead && guest.running) return `${guest.name} did not notice the end of the host`;
    }
    return this.hostDead || this.sink.queue.length === 0 ? undefined : 'the sink has packets to send';
  }

  get allAsleep(): boolean {
    return (this.hostDead || this.hostSleep.atRest) && this.guests.every((guest) => guest.sleep.atRest);
  }

  /** All invariants of a machine at rest. */
  check(): void {
    for (const guest of this.guests) guest.checkIdle();
    if (!this.hostDead) {
      this.host.nics.forEach((nic, index) => {
        const state = nic.state();
        const fail = (what: string): never => {
          throw new Error(`${nic.name} (${state.phase}): ${what}`);
        };
        const guest = this.guests[index]!;
        if (state.receiveBuffer.inUse !== 0) fail(`${state.receiveBuffer.inUse} suballocations did not come back`);
        if (state.receiveBuffer.controlInUse !== 0) fail('a control suballocation did not come back');
        if (state.control.waiting !== 0) fail(`${state.control.waiting} control messages wait`);
        if (state.deaths !== 0) fail(`the channel died: ${state.reason}`);
        if (guest.running !== (state.phase === 'ready')) fail(`its guest is ${guest.nic.device.state}`);
        if (guest.running && guest.nic.device.info!.linkUp !== nic.linkUp) fail('the guest missed a link change');
      });
    }
    const drops = this.#formerDrops + (this.hostDead ? 0 : this.#hostDrops()) + sum(this.guests.map((g) => g.drops()));
    this.ledger.settle(drops - this.#settledDrops, this.guests.length + 2);
    this.#settledDrops = drops;
  }

  #hostDrops(): number {
    let drops = 0;
    for (const nic of this.host.nics) {
      const { counters, workshop, lostToDeadChannels } = nic.state();
      drops +=
        lostToDeadChannels +
        counters.rxNoSuballocation! +
        counters.rxRingFull! +
        counters.rxTooBig! +
        workshop.refused!;
    }
    for (const port of [...this.host.nics, ...this.host.uplinks]) {
      for (const [name, count] of Object.entries(this.host.switch.portCounters(port))) {
        if (/^(in|out)Drop/.test(name)) drops += count;
      }
    }
    const { dropped, badChecksum, refused } = this.#echo.stats();
    return drops + dropped! + badChecksum! + refused! + this.sink.stats().refused!;
  }

  #stationOf(mac: string): string {
    return this.#stations.get(mac) ?? `unknown station ${mac}`;
  }

  /** The guest's end of a device; what it signals wakes the host. Driver code that ran because a deadline passed while
   *  the guest slept makes its loop go round again. */
  #device(device: VmbusDevice, index: number): VmbusDevice {
    const acts = () => {
      if (this.guests[index]?.sleep.asleep) this.guests[index].sleep.order();
    };
    return Object.create(device, {
      openSubchannel: {
        value: () => {
          const subchannel = device.openSubchannel();
          if (!subchannel) return undefined;
          const signal = () => {
            acts();
            subchannel.signal();
            this.hostSleep.interrupt();
          };
          return { ...subchannel, signal };
        },
      },
      signal: {
        value: () => {
          acts();
          device.signal();
          this.hostSleep.interrupt();
        },
      },
      open: {
        value: () => {
          acts();
          this.hostSleep.order();
          return device.open();
        },
      },
      close: {
        value: () => {
          acts();
          this.hostSleep.order();
          device.close();
        },
      },
    });
  }

  #offer(offer: VmbusOffer, index: number): VmbusOffer {
    return Object.create(offer, {
      createSubchannel: {
        value: () => {
          const subchannel = offer.createSubchannel();
          const signal = () => {
            subchannel.signal();
            this.guests[index]?.sleep.interrupt();
          };
          return { ...subchannel, signal };
        },
      },
      signal: {
        value: () => {
          offer.signal();
          this.guests[index]?.sleep.interrupt();
        },
      },
      poll: {
        value: () => {
          const polled = offer.poll();
          // An end is reported alone: the opening that may have followed keeps the descriptor readable.
          if (polled.closed) this.hostSleep.order();
          return polled;
        },
      },
      rescind: {
        value: () => {
          offer.rescind();
          this.guests[index]?.sleep.order();
        },
      },
    });
  }
}

const hex = (mac: Uint8Array): string => Buffer.from(mac).toString('hex');
const sum = (list: readonly number[]): number => list.reduce((all, one) => all + one, 0);
