// The Hyper-V side of a machine: its NICs, the switch that joins them, and the uplinks. One thread steps it by polling;
// nothing here waits, and time comes in through tick().
import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import type { VmbusOffer } from '../vmbus/device.js';
import { createMachine, type Machine, type MachineNic } from '../vmbus/uio/machine.js';
import { nicMac, nicUuid } from './identity.js';
import { Nic } from './nic.js';
import type { Uplink, VlanMode } from './ports.js';
import { type ProfileName, profileNamed } from './profiles.js';
import type { HostState, PortState } from './state.js';
import type { UplinkContext } from './uplinks/index.js';
import { VirtualSwitch } from './vswitch.js';

const nicName = (index: number) => `nic${index}`;

/** A NIC of the machine; everything has a default. */
export interface HostNicOptions {
  /** 6 bytes; default from machine name and index. */
  readonly mac?: Uint8Array;
  readonly uuid?: string;
  readonly friendlyName?: string;
  readonly linkSpeedBps?: number;
  readonly vlan?: VlanMode;
  /** Bytes of both rings together. */
  readonly ringBytes?: number;
  /** The same of each subchannel. */
  readonly subchannelRingBytes?: number;
  /** The guest triggers the host through the monitor page instead of interrupting it. */
  readonly monitor?: boolean;
}

/** Makes an uplink, e.g. `(context) => openUplink(parseUplink(text), context)`; the host plugs it in and closes it. */
export type UplinkFactory = (context: UplinkContext) => Uplink;

export interface HostOptions {
  readonly arena: Arena;
  readonly datapath: Datapath;
  /** Names the machine directory, and gives the NICs their addresses. */
  readonly machine: string;
  readonly profile: ProfileName;
  readonly nics: readonly HostNicOptions[];
  readonly uplinks?: readonly UplinkFactory[];
  /** Devices to serve instead of making a machine directory (memory backend); one for each of `nics`. */
  readonly offers?: readonly VmbusOffer[];
  /** Random 32 bits, for the switch's table. */
  readonly seed?: number;
  /** Wall clock at the loop's time 0, nanoseconds since 1970: timestamps of captures. Default 0. */
  readonly epochNs?: bigint;
}

export class Host {
  /** As they are plugged in. */
  readonly nics: readonly Nic[];
  readonly uplinks: readonly Uplink[];
  readonly switch: VirtualSwitch;
  /** Root for guests; undefined when the devices were given. */
  readonly path: string | undefined;
  readonly #machine: string;
  readonly #directory: Machine | undefined;
  readonly #profile: ProfileName;
  readonly #datapath: Datapath;
  readonly #undo: (() => void)[] = [];
  readonly #nics: Nic[] = [];
  /** What fds() gives. */
  readonly #fds: number[] = [];

  /** Throws VmbusError, RangeError or what an uplink throws; everything is undone then. */
  static create(options: HostOptions): Host {
    return new Host(options);
  }

  private constructor(options: HostOptions) {
    const { arena, datapath, machine } = options;
    const profile = profileNamed(options.profile);
    this.#machine = machine;
    this.#profile = profile.name;
    this.#datapath = datapath;
    this.nics = this.#nics;
    try {
      let offers = options.offers;
      if (offers) this.path = undefined;
      else {
        const made = createMachine(arena, {
          name: machine,
          nics: options.nics.map((nic, index) => ({ ...this.#device(nic, index), relid: index + 1 })),
        });
        this.#undo.push(() => made.close());
        this.#directory = made;
        this.path = made.path;
        offers = made.offers;
      }
      if (offers.length !== options.nics.length) {
        throw new RangeError(
          `host ${machine}: expected an offer for each of ${options.nics.length} NICs, got ${offers.length}`,
        );
      }
      this.switch = new VirtualSwitch({
        arena,
        datapath,
        ...(options.seed === undefined ? {} : { seed: options.seed }),
      });
      this.#undo.push(() => this.switch.close());
      this.#undo.push(() => {
        for (const nic of this.#nics.toReversed()) nic.close();
      });
      for (const [index, nic] of options.nics.entries()) this.#makeNic(nic, index, offers[index]!);
      const uplinks: Uplink[] = [];
      this.uplinks = uplinks;
      for (const factory of options.uplinks ?? []) {
        const number = this.switch.freeNumber();
        const uplink = factory({ arena, datapath, sink: this.switch, number, epochNs: options.epochNs ?? 0n });
        this.#undo.push(() => uplink.close());
        this.switch.addPort(uplink);
        uplinks.push(uplink);
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** One turn: every NIC and uplink gets a bounded burst. Returns how much there was to do; 0 = nothing. */
  step(): number {
    let work = 0;
    for (let i = 0; i < this.nics.length; i++) this.nics[i]!.look();
    for (let i = 0; i < this.nics.length; i++) work += this.nics[i]!.poll();
    for (let i = 0; i < this.uplinks.length; i++) work += this.uplinks[i]!.poll();
    for (let i = 0; i < this.nics.length; i++) this.nics[i]!.signal();
    return work;
  }

  /** About once a millisecond: guests that came or went are seen at the next step. */
  tick(nowMs: number): void {
    this.#directory?.tick();
    for (const nic of this.nics) nic.tick();
    for (const uplink of this.uplinks) uplink.tick(nowMs);
    this.switch.tick(nowMs);
  }

  /** Before sleeping in poll(2) on fds(): unmasks all interrupts. False = something waits, and all are masked again. */
  arm(): boolean {
    let idle = true;
    for (const nic of this.nics) idle = nic.arm() && idle;
    for (const uplink of this.uplinks) idle = uplink.arm() && idle;
    if (!idle) this.disarm();
    return idle;
  }

  /** Longest sleep in ms: guests that trigger through the monitor page wake nobody. Undefined = any. */
  sleepMs(): number | undefined {
    let least: number | undefined;
    for (const { monitorMs } of this.nics) {
      if (monitorMs !== undefined && !(monitorMs > (least ?? Number.POSITIVE_INFINITY))) least = monitorMs;
    }
    return least;
  }

  /** After sleeping. `signalled` false: the caller knows that fds() have nothing, so they are not looked at. `ready` says
   *  which ones have. */
  disarm(signalled = true, ready?: (fd: number) => boolean): void {
    for (const nic of this.nics) nic.disarm(signalled, ready);
  }

  fds(): readonly number[] {
    const fds = this.#fds;
    const { nics, uplinks } = this;
    fds.length = 0;
    for (let i = 0; i < nics.length; i++) {
      const own = nics[i]!.offer.fds;
      for (let j = 0; j < own.length; j++) fds.push(own[j]!);
    }
    for (let i = 0; i < uplinks.length; i++) fds.push(...uplinks[i]!.fds());
    return fds;
  }

  /** The NIC of that name or UUID. Throws a RangeError that lists the names. */
  nic(name: string): Nic {
    const found = this.nics.find((nic) => nic.name === name || nic.offer.uuid === name);
    if (found) return found;
    throw new RangeError(
      `host ${this.#machine}: no NIC ${name}, there are ${this.nics.map((nic) => nic.name).join(', ')}`,
    );
  }

  /** Plugs a NIC in, under the lowest name that is free. Throws VmbusError, RangeError. */
  addNic(options: HostNicOptions = {}): Nic {
    const directory = this.#machineDirectory();
    let index = 0;
    while (this.#nics.some(({ name }) => name === nicName(index))) index++;
    const offer = directory.add(this.#device(options, index));
    try {
      return this.#makeNic(options, index, offer);
    } catch (error) {
      directory.remove(offer.uuid);
      throw error;
    }
  }

  /** Pulls the NIC of that name or UUID out: its guest is told by a rescind, and keeps what it has mapped. Throws a RangeError. */
  removeNic(name: string): void {
    const directory = this.#machineDirectory();
    const nic = this.nic(name);
    this.#nics.splice(this.#nics.indexOf(nic), 1);
    this.switch.removePort(nic);
    nic.close();
    directory.remove(nic.offer.uuid);
  }

  state(): HostState {
    const port = (number: number, counters: Record<string, number>, of: Nic | Uplink): PortState => {
      const { name, kind, linkUp, mtu } = of;
      return { number, name, kind, linkUp, mtu, counters };
    };
    return {
      machine: this.#machine,
      profile: this.#profile,
      nics: this.nics.map((nic) => nic.state()),
      ports: [
        ...this.nics.map((nic) => port(nic.number, { ...this.switch.portCounters(nic) }, nic)),
        ...this.uplinks.map((uplink) =>
          port(uplink.number, { ...this.switch.portCounters(uplink), ...uplink.stats() }, uplink),
        ),
      ],
      switch: this.switch.counters(),
      drivers: this.#directory && { ...this.#directory.drivers.stats },
      stations: this.switch.table(),
    };
  }

  /** Withdraws the devices from their guests and gives everything back. Safe to call twice. */
  close(): void {
    for (const action of this.#undo.splice(0).reverse()) action();
  }

  #machineDirectory(): Machine {
    if (this.#directory) return this.#directory;
    throw new RangeError(`host ${this.#machine}: its devices were given to it, none can come or go`);
  }

  /** The device of a NIC, in a machine directory. */
  #device(nic: HostNicOptions, index: number): MachineNic {
    const { receiveBytes, sendBytes } = profileNamed(this.#profile);
    return {
      uuid: nic.uuid ?? nicUuid(this.#machine, index),
      receiveBytes,
      sendBytes,
      ...(nic.ringBytes === undefined ? {} : { ringBytes: nic.ringBytes }),
      ...(nic.subchannelRingBytes === undefined ? {} : { subchannelRingBytes: nic.subchannelRingBytes }),
      ...(nic.monitor === undefined ? {} : { monitor: nic.monitor }),
    };
  }

  #makeNic(options: HostNicOptions, index: number, offer: VmbusOffer): Nic {
    const { friendlyName, linkSpeedBps, vlan } = options;
    const nic: Nic = new Nic({
      offer,
      datapath: this.#datapath,
      profile: profileNamed(this.#profile),
      port: this.switch.freeNumber(),
      name: nicName(index),
      mac: options.mac ?? nicMac(this.#machine, index),
      ...(friendlyName === undefined ? {} : { friendlyName }),
      ...(linkSpeedBps === undefined ? {} : { linkSpeedBps }),
      ...(vlan === undefined ? {} : { vlan }),
      sink: this.switch,
      mayUseMac: (mac) => !this.#macOfAnother(nic, mac),
    });
    try {
      this.switch.addPort(nic);
    } catch (error) {
      nic.close();
      throw error;
    }
    this.#nics.push(nic);
    return nic;
  }

  /** Two ports of a switch cannot have one address. */
  #macOfAnother(nic: Nic, mac: Uint8Array): boolean {
    const wanted = Buffer.from(mac);
    const ports: readonly (Nic | Uplink)[] = [...this.nics, ...this.uplinks];
    return ports.some((port) => port !== nic && port.macs.some((other) => wanted.equals(other)));
  }
}
