// Peers of two interfaces: iperf3's traffic, tcpdump's captures, tshark's eyes.
import { type ChildProcess, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { skipReason as interfacesMissing, Lines, type Place } from '../netdev/rig.js';

export function skipReason(...programs: readonly string[]): string | false {
  const missing = programs.find((program) => spawnSync(program, ['--version']).error !== undefined);
  return interfacesMissing() || (missing !== undefined && `needs ${missing}`);
}

/** What iperf3 sums up of all streams. */
interface Sum {
  readonly bytes: number;
  readonly retransmits?: number;
  readonly packets?: number;
  readonly lost_packets?: number;
}
interface Stream {
  readonly udp?: { readonly packets: number; readonly out_of_order: number };
}
export interface IperfReport {
  readonly error?: string;
  readonly end: {
    readonly streams: readonly Stream[];
    readonly sum?: Sum;
    readonly sum_sent?: Sum;
    readonly sum_received?: Sum;
  };
}

/** One run of iperf3; rejects when either side fails. */
export async function iperf(client: Place, server: Place, address: string, words: string): Promise<IperfReport> {
  const listener = server.start('iperf3', '-s', '-1', '--forceflush');
  const listens = new Lines(listener);
  const end = once(listener, 'close');
  await listens.line(1, () => listener.exitCode === null, 'iperf3 -s');
  const { said, code } = await client.attempt('iperf3', '-c', address, '-J', ...words.split(' '));
  // Behind a warning, if it has one.
  const report = JSON.parse(said.slice(said.indexOf('{'))) as IperfReport;
  if (code !== 0 || report.error !== undefined) {
    listener.kill('SIGKILL');
    throw new Error(`iperf3 -c ${address} ${words} ended with ${code}: ${report.error}`);
  }
  await end;
  if (listener.exitCode !== 0) throw new Error(`iperf3 -s ended with ${listener.exitCode}`);
  return report;
}

/** What passes an interface, written to a file until it is stopped. */
export class Capture {
  readonly file: string;
  readonly #child: ChildProcess;
  readonly #end: Promise<unknown>;

  /** Resolves when it captures. */
  static async start(place: Place, file: string, filter: string): Promise<Capture> {
    const words = ['-i', 'hv0', '-U', '--immediate-mode', '-s', '0', '-B', '65536', '-Z', 'root', '-w', file, filter];
    const child = place.start('tcpdump', ...words);
    const capture = new Capture(child, file);
    await new Promise<void>((resolve, reject) => {
      let said = '';
      child.stderr!.setEncoding('utf8').on('data', (text: string) => {
        said += text;
        if (said.includes('listening on')) resolve();
      });
      child.once('exit', () => reject(new Error(`tcpdump: ${said}`)));
    });
    return capture;
  }

  private constructor(child: ChildProcess, file: string) {
    this.#child = child;
    this.file = file;
    this.#end = once(child, 'exit');
  }

  /** Stops a little later: the kernel hands packets over in blocks. */
  async stop(): Promise<void> {
    await sleep(300);
    this.#child.kill('SIGINT');
    await this.#end;
  }
}

/** A packet as tshark sees it. A checksum is undefined where there is none; `unfilled`: only the pseudo-header is in it, as the
 *  kernel leaves it to the device. */
export interface Seen {
  readonly length: number;
  readonly source: string;
  readonly ip: Sum16 | undefined;
  readonly tcp: Sum16 | undefined;
  readonly udp: Sum16 | undefined;
  readonly malformed: boolean;
  readonly protocols: string;
}
export type Sum16 = 'good' | 'bad' | 'unfilled';

/** Payload is just data, whatever tshark makes of the other port: that of test/ethdev/talk.ts. */
const PLAIN = ['tcp', 'udp'].flatMap((protocol) => ['-d', `${protocol}.port==5202,data`]);

const FIELDS = [
  ...['frame.len', 'eth.src', 'frame.protocols', '_ws.malformed', 'ip.checksum.status', 'tcp.checksum.status'],
  ...['udp.checksum.status', 'tcp.checksum', 'udp.checksum', 'ip.src', 'ip.dst', 'ip.len', 'ip.hdr_len', 'ipv6.src'],
  ...['ipv6.dst', 'ipv6.plen'],
] as const;

/** Reads a capture with every checksum verified. */
export function seen(file: string): Seen[] {
  const checks = ['ip', 'tcp', 'udp'].flatMap((protocol) => ['-o', `${protocol}.check_checksum:TRUE`]);
  const fields = FIELDS.flatMap((name) => ['-e', name]);
  const { stdout, stderr, status } = spawnSync(
    'tshark',
    ['-n', '-r', file, ...PLAIN, ...checks, '-T', 'fields', '-E', 'occurrence=f', ...fields],
    { encoding: 'utf8', maxBuffer: 1 << 30, timeout: 120_000 },
  );
  if (status !== 0) throw new Error(`tshark -r ${file}: ${stderr}`);
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const values = line.split('\t');
      return packet((name) => values[FIELDS.indexOf(name)] ?? '');
    });
}

function packet(field: (name: (typeof FIELDS)[number]) => string): Seen {
  /** tshark's numbers: 0 bad, 1 good. */
  const sum = (protocol: 'ip' | 'tcp' | 'udp'): Sum16 | undefined => {
    const status = field(`${protocol}.checksum.status`);
    if (status === '1') return 'good';
    if (status !== '0') return undefined;
    return protocol !== 'ip' && Number(field(`${protocol}.checksum`)) === pseudoSum(field, protocol)
      ? 'unfilled'
      : 'bad';
  };
  return {
    length: Number(field('frame.len')),
    source: field('eth.src'),
    ...{ ip: sum('ip'), tcp: sum('tcp'), udp: sum('udp') },
    malformed: field('_ws.malformed') !== '',
    protocols: field('frame.protocols'),
  };
}

/** Ones' complement sum of the pseudo-header (RFC 9293 3.1, RFC 8200 8.1). */
function pseudoSum(field: (name: (typeof FIELDS)[number]) => string, protocol: 'tcp' | 'udp'): number {
  const v4 = field('ip.src') !== '';
  const length = v4 ? Number(field('ip.len')) - Number(field('ip.hdr_len')) : Number(field('ipv6.plen'));
  const words = [protocol === 'tcp' ? 6 : 17, length & 0xffff];
  for (const address of v4 ? [field('ip.src'), field('ip.dst')] : [field('ipv6.src'), field('ipv6.dst')])
    words.push(...(v4 ? words4(address) : words6(address)));
  let sum = words.reduce((all, word) => all + word, 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

function words4(address: string): number[] {
  const [a, b, c, d] = address.split('.').map(Number) as [number, number, number, number];
  return [(a << 8) | b, (c << 8) | d];
}

/** Where the zeros are does not matter to a sum. */
const words6 = (address: string): number[] => address.split(':').map((word) => Number.parseInt(word || '0', 16));
