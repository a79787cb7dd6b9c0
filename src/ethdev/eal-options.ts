// The options in front of "--" on a DPDK program's command line, as far as they mean something here.
import { parseArgs } from 'node:util';
import { Devargs, splitArguments } from './devargs.js';
import { PortError } from './errors.js';

/** A device that was named, with its arguments. */
export interface DeviceSpec {
  readonly device: string;
  readonly args: string;
}

export interface EalOptions {
  /** CPUs of the lcores; the first one's is the control thread's. */
  readonly cpus: readonly number[];
  /** Bus devices that are taken into use; undefined = all but those blocked. */
  readonly allow: readonly DeviceSpec[] | undefined;
  readonly block: readonly string[];
  readonly vdevs: readonly DeviceSpec[];
  /** Name or directory of a machine, or "/" for this system's own devices; undefined = no bus. */
  readonly root: string | undefined;
  /** Packet memory, MiB. */
  readonly memoryMb: number;
}

/** `usualCpus`: what is used without -l, in words. */
export const ealUsage = (usualCpus: string): string => `EAL options:
  -l, --lcores LIST        CPUs to run on, "0-1,3"; the first one is the control thread's (default: ${usualCpus})
  -a, --allow DEV[,ARGS]   take only such devices into use: vmbus:UUID or UUID, with device arguments
  -b, --block DEV          do not take that device into use
  --vdev NAME[,ARGS]       a virtual device: net_ring0, net_null0, net_pcap0, net_af_packet0, net_tap0; around another
                           port: net_capture0,port=NAME,file=FILE and net_impair0,port=NAME,loss=0.01
  --machine NAME           devices of that machine's host ("netvsc host")
  --root DIR               devices below DIR: a machine's directory, or / for a Hyper-V guest's own
  -m MB                    packet memory (default 64)`;

/** For programs that leave EalSettings.allCpus out. */
export const EAL_USAGE: string = ealUsage('the first allowed one');

const MEMORY_MB = 64;
const CPUS_MAX = 1024;
/** What DPDK programs are often started with and what makes no difference here. */
const IGNORED = {
  ...{ 'no-huge': 'boolean', 'no-pci': 'boolean', 'no-shconf': 'boolean', 'in-memory': 'boolean' },
  ...{ 'no-telemetry': 'boolean', 'file-prefix': 'string', 'iova-mode': 'string', 'proc-type': 'string' },
} as const;

/** Reads EAL arguments; without -l the lcores are `usualCpus`. Throws PortError with one line for the user. */
export function parseEalArguments(words: readonly string[], usualCpus: readonly number[]): EalOptions {
  const values = read(words);
  const { allow, block, machine, root } = values;
  if (allow && block) throw fault('-a and -b: expected one of both');
  if (machine !== undefined && root !== undefined) throw fault('--machine and --root: expected one of both');
  return {
    cpus: values.lcores === undefined ? usualCpus : parseCpus(values.lcores),
    allow: allow?.map((text) => parseBusDevice(text, '-a')),
    block: (block ?? []).map((text) => parseBusDevice(text, '-b').device),
    vdevs: (values.vdev ?? []).map(parseVdev),
    root: machine ?? root,
    memoryMb: parseMemory(values.memory),
  };
}

function read(words: readonly string[]) {
  try {
    const { values } = parseArgs({
      args: [...words],
      strict: true,
      allowPositionals: false,
      options: {
        lcores: { type: 'string', short: 'l' },
        allow: { type: 'string', short: 'a', multiple: true },
        block: { type: 'string', short: 'b', multiple: true },
        vdev: { type: 'string', multiple: true },
        machine: { type: 'string' },
        root: { type: 'string' },
        memory: { type: 'string', short: 'm' },
        channels: { type: 'string', short: 'n' },
        ...Object.fromEntries(Object.entries(IGNORED).map(([name, type]) => [name, { type }])),
      },
    });
    return values;
  } catch (error) {
    // Node's message goes on with advice that is none here.
    throw fault((error as Error).message.split(/[.\n]\s*/)[0]!);
  }
}

/** "0-2,5" to [0, 1, 2, 5]. */
export function parseCpus(text: string): number[] {
  const cpus: number[] = [];
  for (const part of text.split(',')) {
    const [, first, last = first] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part) ?? [];
    if (first === undefined || Number(last) < Number(first) || Number(last) >= CPUS_MAX)
      throw fault(`-l ${text}: expected CPU numbers and ranges, as in 0-2,5`);
    for (let cpu = Number(first); cpu <= Number(last); cpu++) {
      if (cpus.includes(cpu)) throw fault(`-l ${text}: CPU ${cpu} twice`);
      cpus.push(cpu);
    }
  }
  return cpus;
}

function parseMemory(text: string | undefined): number {
  if (text === undefined) return MEMORY_MB;
  const value = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (!(value >= 1 && value <= 2048)) throw fault(`-m ${text}: expected 1 to 2048 MiB`);
  return value;
}

/** "vmbus:UUID,a=1" or "UUID,a=1". */
function parseBusDevice(text: string, option: string): DeviceSpec {
  const [, uuid, args = ''] =
    /^(?:vmbus:)?\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?(?:,(.*))?$/i.exec(text) ?? [];
  if (uuid === undefined) throw fault(`${option} ${text}: expected vmbus:UUID, with ",key=value" for arguments`);
  return { device: uuid.toLowerCase(), args: checkedArgs(args, `${option} ${uuid}`) };
}

function parseVdev(text: string): DeviceSpec {
  const [device = '', ...rest] = splitArguments(text, `--vdev ${text}`);
  if (!/^[a-z][a-z0-9_-]*$/i.test(device)) throw fault(`--vdev ${text}: expected a name as net_ring0, then arguments`);
  return { device, args: checkedArgs(rest.join(','), `--vdev ${device}`) };
}

function checkedArgs(text: string, where: string): string {
  return new Devargs(text, where).text;
}

const fault = (problem: string) => new PortError('EINVAL', 'EAL', problem);
