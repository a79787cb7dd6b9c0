// Our testpmd and DPDK's on the same capture file: every mode sends the same bytes, and "set verbose" prints the same.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { packageRoot } from '../../src/apps/package-info.js';
import { affinity } from '../../src/memory/os/process.js';
import { buildPacket, put16 } from '../../src/offload/offload-testing.js';
import { parseMac } from '../../src/wire/address-text.js';
import { internetChecksum } from '../../src/wire/checksum.js';
import { ARP_OPERATION, Arp, ETHER_TYPE, EthernetHeader } from '../../src/wire/ethernet.js';
import { IcmpEcho, IP_PROTOCOL, Ipv4Header } from '../../src/wire/ip.js';
import { readCapture } from '../../src/wire/pcap.js';
import { join } from '../datapath/model.js';
import { DPDKS, type Dpdk, EAL, MISSING_DPDK } from './dpdk.js';

const CPUS = affinity().slice(0, 2);
const skip = CPUS.length < 2 && 'one CPU';
const main = path.join(packageRoot(), 'dist/src/cli/main.js');
const PATIENCE_MS = 60_000;
const LOOK_MS = 50;
const SETTLE_MS = 500;
const MODES = ['io', 'mac', 'macswap', '5tswap', 'csum', 'icmpecho', 'rxonly'] as const;

const ethernet = { destination: '02:00:00:00:00:09', source: '02:00:00:00:00:08' };

function ping(): Uint8Array {
  const message = join(IcmpEcho.encode({ type: 8, identifier: 3, sequence: 4 }), new Uint8Array(41).fill(0x55));
  put16(message, 2, internetChecksum(message));
  const ip = {
    ...{ versionHeaderLength: 0x45, totalLength: Ipv4Header.size + message.length, timeToLive: 64 },
    ...{ protocol: IP_PROTOCOL.ICMP, source: '10.0.0.1', destination: '10.0.0.2' },
  };
  const headerChecksum = internetChecksum(Ipv4Header.encode(ip));
  const header = Ipv4Header.encode({ ...ip, headerChecksum });
  return join(EthernetHeader.encode({ ...ethernet, etherType: ETHER_TYPE.IPV4 }), header, message);
}

function arp(operation: number): Uint8Array {
  const addresses = { senderMac: ethernet.source, senderIp: '10.0.0.1', targetIp: '10.0.0.9' };
  return join(
    EthernetHeader.encode({ ...ethernet, destination: 'ff:ff:ff:ff:ff:ff', etherType: ETHER_TYPE.ARP }),
    Arp.encode({ operation, ...addresses, targetMac: '00:00:00:00:00:00' }),
  );
}

/** Whole packets, those with wrong checksums too. What testpmd does to pieces of packets is not wanted (model-forward.ts). */
function packets(): Uint8Array[] {
  const list: Uint8Array[] = [];
  for (const family of [4, 6] as const) {
    for (const protocol of [6, 17] as const) {
      for (const [payload, tag] of [
        [100, undefined],
        [1001, 0x6007],
      ] as const) {
        const spec = {
          family,
          protocol,
          payload,
          tag,
          ipOptions: 0,
          tcpOptions: 2,
          tcpFlags: 0x10,
          seed: payload + protocol,
        };
        const { bytes, l3, l4 } = buildPacket(spec);
        list.push(bytes);
        const wrong = bytes.slice();
        if (family === 4) put16(wrong, l3 + 10, 0x1234);
        put16(wrong, l4 + (protocol === 6 ? 16 : 6), 0x4321);
        list.push(wrong);
      }
    }
  }
  const { bytes, l4 } = buildPacket({
    ...{ family: 4, protocol: 17, ipOptions: 2, tcpOptions: 0, payload: 40 },
    ...{ tcpFlags: 0, seed: 5 },
  });
  put16(bytes, l4 + 6, 0);
  const junk = new Uint8Array(62).fill(0x6a);
  put16(junk, 12, 0x9000);
  for (const frame of list) frame.set([2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8]);
  return [...list, bytes, ping(), arp(ARP_OPERATION.REQUEST), arp(ARP_OPERATION.REPLY), junk];
}

/** A capture of microseconds since 1970: 0, 1, 2, ... */
function capture(frames: readonly Uint8Array[]): Uint8Array {
  const record = (frame: Uint8Array, i: number) => {
    const head = new DataView(new ArrayBuffer(16));
    for (const [at, value] of [0, i, frame.length, frame.length].entries()) head.setUint32(at * 4, value, true);
    return join(new Uint8Array(head.buffer), frame);
  };
  const head = Buffer.from('d4c3b2a1020004000000000000000000ffff000001000000', 'hex');
  return join(head, ...frames.map(record));
}

const FRAMES = packets();

interface Outcome {
  /** What was sent; the port's own address is zeros. */
  readonly sent: readonly string[];
  /** What was printed from "received" on, up to the statistics. */
  readonly verbose: string;
}

class Dialogue {
  out = '';
  readonly #child: ChildProcess;

  constructor(t: TestContext, command: readonly string[]) {
    this.#child = spawn(command[0]!, command.slice(1), { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child.stdout!.on('data', (chunk) => {
      this.out += chunk;
    });
    this.#child.stderr!.on('data', (chunk) => {
      this.out += chunk;
    });
    t.after(() => this.#child.kill('SIGKILL'));
  }

  type(line: string): void {
    this.#child.stdin!.write(`${line}\n`);
  }

  async end(last: string): Promise<void> {
    this.#child.stdin!.end(`${last}\n`);
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), PATIENCE_MS);
    const [code] = await once(this.#child, 'close');
    clearTimeout(timer);
    assert.equal(code, 0, this.out);
  }

  /** Waits until all packets have come. What is printed of them comes in one burst. */
  async receivedAll(verbose: boolean): Promise<void> {
    const until = performance.now() + PATIENCE_MS;
    const sign = verbose ? `received ${FRAMES.length} packets` : `RX-packets: ${FRAMES.length} `;
    while (!this.out.includes(sign)) {
      assert.ok(performance.now() < until, this.out);
      if (!verbose) this.type('show port stats 0');
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    if (verbose) await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  }
}

async function outcome(t: TestContext, command: readonly string[], mode: string, verbose: boolean): Promise<Outcome> {
  const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-testpmd-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const [from, to] = [path.join(folder, 'in.pcap'), path.join(folder, 'out.pcap')];
  writeFileSync(from, capture(FRAMES));
  const device = `net_pcap0,rx_pcap=${from},tx_pcap=${to}`;
  const own = ['--no-flush-rx', '--port-topology=loop', `--forward-mode=${mode}`, '--total-num-mbufs=2048'];
  // DPDK's prompt and echo would break into lines about packets: no prompt then.
  const file = path.join(folder, 'commands');
  writeFileSync(file, 'set verbose 3\n');
  own.push(...(verbose ? [`--cmdline-file=${file}`] : ['-i']));
  const dialogue = new Dialogue(t, [...command, '-l', CPUS.join(','), '--vdev', device, '--', ...own]);
  if (!verbose) dialogue.type('start');
  await dialogue.receivedAll(verbose);
  await dialogue.end(verbose ? '' : 'quit');
  const mac = /Port 0: ((?:[0-9A-F]{2}:){5}[0-9A-F]{2})/.exec(dialogue.out)![1]!;
  const hex = Buffer.from(parseMac(mac)!).toString('hex');
  const sent = readCapture(readFileSync(to)).map(({ data }) =>
    Buffer.from(data).toString('hex').replaceAll(hex, '0'.repeat(12)),
  );
  return { sent, verbose: verbose ? printed(dialogue.out, mac) : '' };
}

/** Lines about packets, without addresses of mbufs and the port's own; 24.11 also names a port for some. */
function printed(out: string, mac: string): string {
  const about =
    /^(port \d+\/queue| {2}src=| {2}ol_flags|-{17}$|port=|[rt]x: |Port \d+ pkt-len| {2}(ETH|IPV4|ICMP|ARP): | {8}[st]ha=)/;
  return out
    .replaceAll(mac, 'OWN')
    .split('\n')
    .filter((line) => about.test(line))
    .map((line) =>
      line.replace(/mbuf=0x[0-9a-f]+/, 'mbuf').replace(/ - timestamp \d+ | - Destination (TCP|UDP) port=\d+/g, ''),
    )
    .join('\n');
}

const theirs = ({ launcher, testpmd, drivers }: Dpdk): string[] => [...launcher, testpmd, ...EAL, ...drivers];
const ours = [process.execPath, main, 'testpmd', '-m', '32'];

for (const why of MISSING_DPDK) test("testpmd beside DPDK's, on captures", { skip: why }, () => {});

for (const dpdk of DPDKS) {
  for (const mode of MODES) {
    test(`mode ${mode} sends the bytes that DPDK ${dpdk.name}'s testpmd sends`, { skip }, async (t) => {
      const mine = await outcome(t, ours, mode, false);
      const its = await outcome(t, theirs(dpdk), mode, false);
      assert.ok(mode === 'rxonly' || mine.sent.length > 0);
      assert.deepEqual(mine.sent, its.sent);
    });
  }

  for (const mode of ['io', 'csum', 'icmpecho'] as const) {
    test(`"set verbose" prints in mode ${mode} what DPDK ${dpdk.name}'s prints`, { skip }, async (t) => {
      const mine = await outcome(t, ours, mode, true);
      const its = await outcome(t, theirs(dpdk), mode, true);
      assert.match(mine.verbose, new RegExp(`received ${FRAMES.length} packets`));
      assert.equal(mine.verbose, its.verbose);
    });
  }
}
