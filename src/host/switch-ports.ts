// The ports of a switch as its forwarding loop wants them: every property in a typed array indexed by port number,
// taken afresh from the port objects at each burst.
import { MAX_PORTS, PORT_FILTER, type SwitchPort, type VlanMode } from './ports.js';

const VLANS = 4096;
const WORDS = VLANS / 32;

/** What is counted for each port: `in` is into the switch, `out` towards the port. */
export const PORT_COUNTERS = [
  'inFrames',
  'inBytes',
  'outFrames',
  'outBytes',
  'inDropLinkDown',
  'inDropVlan', // a tag that this port does not accept
  'inDropShortTag', // 802.1Q type but no room for the tag, or more fragments than one frame may have
  'inDropSpoofed', // sent from another port's own address
  'inDropReturn', // its destination lies behind the port it came from
  'inDropNoReceiver', // no port takes it
  'outDropLinkDown',
  'outDropVlan', // the station's VLAN is no longer carried here
  'outDropFilter', // the port's packet filter does not ask for it
  'outDropTooLong', // beyond the port's MTU and not to be segmented
] as const;

export type PortCounter = (typeof PORT_COUNTERS)[number];

/** Index of each counter. */
export const COUNTER = Object.fromEntries(PORT_COUNTERS.map((name, index) => [name, index])) as Record<
  PortCounter,
  number
>;

/** Throws a RangeError that says what is wrong with a VLAN mode. */
export function checkVlan(vlan: VlanMode, who: string): void {
  const ids = vlan.mode === 'access' ? [vlan.vlan] : [vlan.native, ...(vlan.allowed ?? [])];
  for (const id of ids) {
    if (!Number.isInteger(id) || id < 0 || id > 4094) {
      throw new RangeError(`${who}: expected VLAN ids of 0 (untagged) to 4094, got ${id}`);
    }
  }
}

export class SwitchPorts {
  /** By number; undefined where nothing is plugged in. */
  readonly ports: (SwitchPort | undefined)[] = new Array(MAX_PORTS + 1).fill(undefined);
  /** Numbers in use, ascending. */
  numbers: number[] = [];
  readonly linkUp = new Uint8Array(MAX_PORTS + 1);
  readonly filter = new Uint32Array(MAX_PORTS + 1);
  /** Longest frame without its tag, in bytes. */
  readonly maxFrame = new Uint32Array(MAX_PORTS + 1);
  /** VLAN whose frames are untagged here. */
  readonly untaggedVlan = new Uint16Array(MAX_PORTS + 1);
  readonly takesTags = new Uint8Array(MAX_PORTS + 1);
  readonly counters = new Float64Array((MAX_PORTS + 1) * PORT_COUNTERS.length);
  /** True while some port wants other ports' unicast. */
  anyPromiscuous = false;
  readonly #carries = new Uint32Array((MAX_PORTS + 1) * WORDS);
  readonly #vlan: (VlanMode | undefined)[] = new Array(MAX_PORTS + 1).fill(undefined);

  add(port: SwitchPort): void {
    const { number, name } = port;
    if (!Number.isInteger(number) || number < 1 || number > MAX_PORTS) {
      throw new RangeError(`switch port ${name}: expected a number of 1 to ${MAX_PORTS}, got ${number}`);
    }
    const other = this.ports[number];
    if (other) throw new Error(`switch port ${name}: number ${number} belongs to ${other.name}`);
    checkVlan(port.vlan, `switch port ${name}`);
    this.ports[number] = port;
    this.#vlan[number] = undefined;
    this.counters.fill(0, number * PORT_COUNTERS.length, (number + 1) * PORT_COUNTERS.length);
    this.#renumber();
    this.refresh();
  }

  remove(number: number): void {
    this.ports[number] = undefined;
    this.linkUp[number] = 0;
    this.filter[number] = 0;
    this.#renumber();
    this.refresh();
  }

  /** Takes the ports' present state. */
  refresh(): void {
    let promiscuous = 0;
    for (let i = 0; i < this.numbers.length; i++) {
      const number = this.numbers[i]!;
      const port = this.ports[number]!;
      const filter = port.kind === 'nic' ? port.filter & ~PORT_FILTER.UNKNOWN : port.filter;
      promiscuous |= filter & PORT_FILTER.PROMISCUOUS;
      this.filter[number] = filter;
      this.linkUp[number] = port.linkUp ? 1 : 0;
      this.maxFrame[number] = port.mtu + 14;
      if (this.#vlan[number] !== port.vlan) this.#setVlan(number, port.vlan);
    }
    this.anyPromiscuous = promiscuous !== 0;
  }

  /** Whether frames of this VLAN may pass the port. */
  carries(number: number, vlan: number): boolean {
    return (this.#carries[number * WORDS + (vlan >>> 5)]! & (1 << (vlan & 31))) !== 0;
  }

  count(number: number, counter: number): void {
    this.counters[number * PORT_COUNTERS.length + counter]! += 1;
  }

  countFrame(number: number, counter: number, bytes: number): void {
    const at = number * PORT_COUNTERS.length + counter;
    this.counters[at]! += 1;
    this.counters[at + 1]! += bytes;
  }

  /** A port's counters by name. */
  stats(number: number): Record<PortCounter, number> {
    const at = number * PORT_COUNTERS.length;
    return Object.fromEntries(PORT_COUNTERS.map((name, i) => [name, this.counters[at + i]!])) as Record<
      PortCounter,
      number
    >;
  }

  #renumber(): void {
    this.numbers = [];
    for (let i = 1; i <= MAX_PORTS; i++) if (this.ports[i]) this.numbers.push(i);
  }

  /** A mode that makes no sense, assigned later on, carries nothing: the loop must go on for the other ports. */
  #setVlan(number: number, vlan: VlanMode): void {
    const row = this.#carries.subarray(number * WORDS, (number + 1) * WORDS);
    this.#vlan[number] = vlan;
    row.fill(0);
    try {
      checkVlan(vlan, '');
    } catch {
      return;
    }
    const untagged = vlan.mode === 'access' ? vlan.vlan : vlan.native;
    this.untaggedVlan[number] = untagged;
    this.takesTags[number] = vlan.mode === 'trunk' ? 1 : 0;
    if (vlan.mode === 'trunk' && !vlan.allowed) row.fill(0xffffffff);
    const ids = vlan.mode === 'trunk' ? (vlan.allowed ?? []) : [];
    for (const id of ids) row[id >>> 5]! |= 1 << (id & 31);
    row[0]! &= ~1; // VLAN 0 has no tag, so it is only carried where it is the untagged one
    row[untagged >>> 5]! |= 1 << (untagged & 31);
    row[WORDS - 1]! &= 0x7fffffff; // 4095 is reserved
  }
}
