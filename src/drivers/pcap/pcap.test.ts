// net_pcap: what the conformance suite asks of every driver.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after } from 'node:test';
import { pcapHeader, pcapngInterface, pcapngPacket, pcapngSection, pcapRecord, readCapture } from '../../wire/pcap.js';
import { conformance, type Wire } from '../conformance.js';
import { initEal } from '../platform.js';

const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-pcap-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const fileName = (suffix: string) => path.join(folder, `${files++}.${suffix}`);

/** Files for each of four queues: what is fed is written before the port starts, what it sent is read after it stops. */
class FileWire implements Wire {
  readonly when = 'stopped';
  readonly choosesQueue = true;
  readonly rx: readonly string[];
  readonly tx: readonly string[];
  readonly #seen: number[] = [0, 0, 0, 0];

  constructor(format: 'pcap' | 'pcapng') {
    const names = () => Array.from({ length: 4 }, () => fileName(format));
    this.rx = names();
    this.tx = names();
    for (const queue of this.rx.keys()) this.#write(queue, []);
  }

  async feed(frames: readonly Uint8Array[], queue: number): Promise<void> {
    this.#write(queue, frames);
  }

  async sent(): Promise<Uint8Array[]> {
    return this.tx.flatMap((file, queue) => {
      const packets = readCapture(readFileSync(file)).slice(this.#seen[queue]);
      this.#seen[queue]! += packets.length;
      return packets.map(({ data }) => data);
    });
  }

  #write(queue: number, frames: readonly Uint8Array[]): void {
    const file = this.rx[queue]!;
    const time = (i: number) => BigInt(i) * 1000n;
    const blocks = file.endsWith('ng')
      ? [pcapngSection(), pcapngInterface('a'), ...frames.map((frame, i) => pcapngPacket(0, time(i), frame))]
      : [pcapHeader(), ...frames.map((frame, i) => pcapRecord(time(i), frame))];
    writeFileSync(file, Buffer.concat(blocks));
  }
}

for (const format of ['pcap', 'pcapng'] as const) {
  conformance({
    name: `net_pcap, ${format}`,
    async open(words) {
      const wire = new FileWire(format);
      const list = [...wire.rx.map((file) => `rx_pcap=${file}`), ...wire.tx.map((file) => `tx_pcap=${file}`)];
      const eal = await initEal([...words, '--vdev', ['net_pcap0', ...list].join()]);
      return { eal, port: eal.port('net_pcap0'), wire, close: () => eal.close() };
    },
  });
}
