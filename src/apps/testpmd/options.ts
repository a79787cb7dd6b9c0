// testpmd's own options, those behind "--". Their names and meaning are DPDK's; a wrong one is one line for the user.
import { RX_OFFLOAD } from '../../ethdev/constants.js';
import { isMode, MODES, type Mode } from './modes.js';
import { TOPOLOGIES, type Topology } from './streams.js';
import {
  BURST_MAX,
  bitsOf,
  parseList,
  parseMacValue,
  parseMask,
  parseSegments,
  parseWhole,
  ValueError,
  wholeNumber,
} from './values.js';

export type RssChoice = 'default' | 'ip' | 'udp' | 'off';

export interface TestpmdOptions {
  help: boolean;
  interactive: boolean;
  autoStart: boolean;
  commandFile: string | undefined;
  /** Print the file's commands as they run. */
  commandEcho: boolean;
  mode: Mode;
  /** Undefined: all lcores but the control thread's. */
  cores: number | undefined;
  /** CPUs, by mask; undefined = all. */
  coreList: readonly number[] | undefined;
  portList: readonly number[] | undefined;
  ports: number | undefined;
  topology: Topology;
  rxQueues: number;
  txQueues: number;
  /** 0 = the device's usual number. */
  rxDescriptors: number;
  txDescriptors: number;
  burst: number;
  /** Bytes of an mbuf's data room, headroom included. */
  mbufBytes: number;
  mbufs: number | undefined;
  mbufCache: number | undefined;
  /** Seconds between statistics; 0 = none. */
  statsPeriod: number;
  displayXstats: readonly string[];
  txFirst: boolean;
  segments: readonly number[];
  multiFlow: boolean;
  flows: number;
  rss: RssChoice;
  /** Bytes of the longest frame, FCS included, as testpmd counts; undefined = what the MTU allows. */
  maxPacketBytes: number | undefined;
  rxOffloads: number;
  txOffloads: number;
  peers: ReadonlyMap<number, Uint8Array>;
  linkCheck: boolean;
  linkEvents: boolean;
  deviceStart: boolean;
  flushRx: boolean;
  /** Ours: threads sleep until a packet comes. */
  rxInterrupts: boolean;
}

export const defaultOptions = (): TestpmdOptions => ({
  ...{ help: false, interactive: false, autoStart: false, commandFile: undefined, commandEcho: false, mode: 'io' },
  ...{ cores: undefined, coreList: undefined, portList: undefined, ports: undefined, topology: 'paired' },
  ...{ rxQueues: 1, txQueues: 1, rxDescriptors: 0, txDescriptors: 0, burst: 32 },
  ...{ mbufBytes: 2176, mbufs: undefined, mbufCache: undefined, statsPeriod: 0, displayXstats: [], txFirst: false },
  ...{ segments: [64], multiFlow: false, flows: 1024, rss: 'default', maxPacketBytes: undefined },
  ...{ rxOffloads: 0, txOffloads: 0, peers: new Map(), linkCheck: true, linkEvents: true, deviceStart: true },
  ...{ flushRx: true, rxInterrupts: false },
});

interface Flag {
  readonly text: string;
  readonly set: (options: TestpmdOptions) => void;
}

interface Valued {
  readonly text: string;
  /** What stands for the value in the help. */
  readonly value: string;
  readonly take: (options: TestpmdOptions, value: string) => void;
}

const whole =
  <K extends keyof TestpmdOptions>(key: K, min: number, max: number) =>
  (options: TestpmdOptions, text: string) => {
    (options[key] as number) = parseWhole(text, min, max);
  };

/** One of several words. Throws ValueError. */
function choice<T extends string>(list: readonly T[], text: string): T {
  const found = list.find((word) => word === text);
  if (found !== undefined) return found;
  throw new ValueError(`expected ${list.join(', ')}, got "${text}"`);
}

function mask32(text: string): number {
  const value = wholeNumber(text);
  if (value === undefined || value > 0xffff_ffff) throw new ValueError(`expected a mask as 0x8000, got "${text}"`);
  return value | 0;
}

function takePeer(options: TestpmdOptions, text: string): void {
  const [port = '', mac = '', ...rest] = text.split(',');
  if (rest.length > 0) throw new ValueError(`expected PORT,MAC, got "${text}"`);
  options.peers = new Map(options.peers).set(parseWhole(port, 0, PORTS_MAX - 1), parseMacValue(mac));
}

/** testpmd's own limit. */
export const PORTS_MAX = 32;
const QUEUES_MAX = 1024;
const DESCRIPTORS_MAX = 65_535;

const RX_CHECKSUMS = RX_OFFLOAD.IPV4_CKSUM | RX_OFFLOAD.UDP_CKSUM | RX_OFFLOAD.TCP_CKSUM;

const FLAGS: Readonly<Record<string, Flag>> = {
  interactive: { text: 'a prompt for commands (-i)', set: (o) => (o.interactive = true) },
  'auto-start': { text: 'with -i: start forwarding at once (-a)', set: (o) => (o.autoStart = true) },
  'tx-first': { text: 'send a burst from every port first', set: (o) => (o.txFirst = true) },
  'txonly-multi-flow': { text: 'txonly sends from many addresses', set: (o) => (o.multiFlow = true) },
  'rss-ip': { text: 'hash IP addresses only', set: (o) => (o.rss = 'ip') },
  'rss-udp': { text: 'hash IP addresses and UDP ports', set: (o) => (o.rss = 'udp') },
  'disable-rss': { text: 'no receive-side scaling', set: (o) => (o.rss = 'off') },
  'enable-rx-cksum': { text: 'devices verify checksums', set: (o) => (o.rxOffloads |= RX_CHECKSUMS) },
  'enable-scatter': { text: 'packets may come in several mbufs', set: (o) => (o.rxOffloads |= RX_OFFLOAD.SCATTER) },
  'enable-lro': { text: 'devices put TCP segments together', set: (o) => (o.rxOffloads |= RX_OFFLOAD.TCP_LRO) },
  'enable-hw-vlan-strip': { text: 'devices take VLAN tags out', set: (o) => (o.rxOffloads |= RX_OFFLOAD.VLAN_STRIP) },
  'enable-hw-vlan-filter': { text: 'devices filter by VLAN id', set: (o) => (o.rxOffloads |= RX_OFFLOAD.VLAN_FILTER) },
  'disable-link-check': { text: 'do not look at links when ports start', set: (o) => (o.linkCheck = false) },
  'no-lsc-interrupt': { text: 'do not tell of link changes', set: (o) => (o.linkEvents = false) },
  'disable-device-start': { text: 'do not start the ports', set: (o) => (o.deviceStart = false) },
  'no-flush-rx': { text: 'forward what waits in queues already, for net_pcap', set: (o) => (o.flushRx = false) },
  'rx-interrupts': { text: 'threads sleep while nothing comes (not in DPDK)', set: (o) => (o.rxInterrupts = true) },
  help: { text: 'this text', set: (o) => (o.help = true) },
};

const VALUED: Readonly<Record<string, Valued>> = {
  'cmdline-file': { value: 'FILE', text: 'run the commands in FILE first', take: (o, v) => takeFile(o, v, true) },
  'cmdline-file-noecho': { value: 'FILE', text: 'the same, unseen', take: (o, v) => takeFile(o, v, false) },
  'nb-cores': { value: 'N', text: 'threads that forward', take: whole('cores', 1, QUEUES_MAX) },
  coremask: { value: 'MASK', text: 'CPUs that forward', take: (o, v) => (o.coreList = nonEmpty(v)) },
  'nb-ports': { value: 'N', text: 'ports that forward', take: whole('ports', 1, PORTS_MAX) },
  portmask: { value: 'MASK', text: 'ports that forward', take: (o, v) => (o.portList = nonEmpty(v)) },
  portlist: { value: 'LIST', text: 'the same as a list', take: (o, v) => (o.portList = parseList(v, PORTS_MAX - 1)) },
  'port-topology': {
    ...{ value: 'NAME', text: 'paired, chained or loop' },
    take: (o, v) => (o.topology = choice(TOPOLOGIES, v)),
  },
  'forward-mode': { value: 'MODE', text: MODES.join(', '), take: takeMode },
  rxq: { value: 'N', text: 'rx queues of each port', take: whole('rxQueues', 0, QUEUES_MAX) },
  txq: { value: 'N', text: 'tx queues of each port', take: whole('txQueues', 0, QUEUES_MAX) },
  rxd: { value: 'N', text: 'descriptors of an rx queue', take: whole('rxDescriptors', 1, DESCRIPTORS_MAX) },
  txd: { value: 'N', text: 'descriptors of a tx queue', take: whole('txDescriptors', 1, DESCRIPTORS_MAX) },
  burst: { value: 'N', text: `packets a burst, 1 to ${BURST_MAX}`, take: whole('burst', 1, BURST_MAX) },
  'mbuf-size': { value: 'BYTES', text: 'data room of an mbuf', take: whole('mbufBytes', 192, 65_536) },
  'total-num-mbufs': { value: 'N', text: 'mbufs of the pool', take: whole('mbufs', 1024, 1 << 24) },
  mbcache: { value: 'N', text: 'mbufs that a thread keeps for itself', take: whole('mbufCache', 1, 512) },
  'stats-period': { value: 'SECONDS', text: 'show statistics again and again', take: whole('statsPeriod', 0, 86_400) },
  'display-xstats': { value: 'NAMES', text: 'and these counters', take: (o, v) => (o.displayXstats = v.split(',')) },
  txpkts: { value: 'BYTES', text: 'segments of made packets', take: (o, v) => (o.segments = parseSegments(v)) },
  'flowgen-flows': { value: 'N', text: 'flows that flowgen makes', take: whole('flows', 1, 0x7fff_ffff) },
  'max-pkt-len': { value: 'BYTES', text: 'longest frame, with FCS', take: whole('maxPacketBytes', 64, 65_553) },
  'rx-offloads': { value: 'MASK', text: 'rx offloads, as 0x2000', take: (o, v) => (o.rxOffloads |= mask32(v)) },
  'tx-offloads': { value: 'MASK', text: 'tx offloads, as 0x8000', take: (o, v) => (o.txOffloads |= mask32(v)) },
  'eth-peer': { value: 'PORT,MAC', text: 'whom the port sends to', take: takePeer },
};

/** Options of DPDK that mean nothing here: taken, with their value. */
const IGNORED: Readonly<Record<string, boolean>> = {
  ...{ numa: false, 'no-numa': false, 'no-mlockall': false, mlockall: false, 'no-rmv-interrupt': false },
  ...{ 'socket-num': true, 'mp-alloc': true },
};

function takeFile(options: TestpmdOptions, file: string, echo: boolean): void {
  options.commandFile = file;
  options.commandEcho = echo;
}

function takeMode(options: TestpmdOptions, text: string): void {
  if (!isMode(text)) throw new ValueError(`expected ${MODES.join(', ')}, got "${text}"`);
  options.mode = text;
}

function nonEmpty(text: string): number[] {
  const list = bitsOf(parseMask(text, QUEUES_MAX));
  if (list.length === 0) throw new ValueError(`expected at least one bit, got "${text}"`);
  return list;
}

/** A whole name, or the beginning of just one, as getopt has it. */
function find(name: string): string {
  const names = [...Object.keys(FLAGS), ...Object.keys(VALUED), ...Object.keys(IGNORED)];
  if (names.includes(name)) return name;
  const found = names.filter((known) => known.startsWith(name));
  if (found.length === 1) return found[0]!;
  if (found.length === 0) throw new ValueError(`unknown option --${name}`);
  throw new ValueError(`option --${name}: it could be ${found.map((known) => `--${known}`).join(', ')}`);
}

const SHORT: Readonly<Record<string, string>> = { i: 'interactive', a: 'auto-start', h: 'help' };

/** Reads the words behind "--". Throws ValueError with one line for the user. */
export function parseTestpmdOptions(words: readonly string[]): TestpmdOptions {
  const options = defaultOptions();
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    const [, dashes, given, , text] = /^(--?)([a-z][a-z0-9-]*)(=(.*))?$/s.exec(word) ?? [];
    if (given === undefined) throw new ValueError(`expected an option, got "${word}"`);
    const short = dashes === '-' ? SHORT[given] : undefined;
    const name = find(short ?? given);
    const flag = FLAGS[name];
    if (flag || IGNORED[name] === false) {
      if (text !== undefined) throw new ValueError(`option --${name}: expected no value, got "${text}"`);
      flag?.set(options);
      continue;
    }
    const value = text ?? words[++i];
    if (value === undefined) throw new ValueError(`option --${name}: expected a value`);
    try {
      VALUED[name]?.take(options, value);
    } catch (error) {
      throw error instanceof ValueError ? new ValueError(`option --${name}: ${error.message}`) : error;
    }
  }
  return checked(options);
}

function checked(options: TestpmdOptions): TestpmdOptions {
  const { interactive, txFirst, statsPeriod, rxQueues, txQueues } = options;
  if (interactive && txFirst) throw new ValueError('option --tx-first: not with -i, where "start tx_first" does it');
  if (interactive && statsPeriod > 0) throw new ValueError('option --stats-period: not with -i');
  if (rxQueues + txQueues === 0) throw new ValueError('options --rxq and --txq: expected at least one queue');
  return options;
}

/** Help for the options, in two columns. */
export function optionsUsage(): string {
  const rows = [
    ...Object.entries(VALUED).map(([name, { value, text }]) => [`--${name}=${value}`, text] as const),
    ...Object.entries(FLAGS).map(([name, { text }]) => [`--${name}`, text] as const),
  ];
  return rows.map(([name, text]) => `  ${name.padEnd(28)} ${text}`).join('\n');
}
