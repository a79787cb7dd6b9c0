// Two of the kernel's network stacks in namespaces of their own, and two ports between them that a loop joins.
import { spawn } from 'node:child_process';
import { PortRig, until } from '../../src/drivers/interface-testing.js';
import { RX_OFFLOAD } from '../../src/ethdev/constants.js';
import { polling } from '../../src/ethdev/lcore.js';
import type { Port } from '../../src/ethdev/port.js';
import type { TestNetwork } from '../../src/memory/os/packet-peer-testing.js';

const BURST = 64;
const LATE_MS = 20_000;

export type Mode = 'plain' | 'checksums' | 'large';
export const MODES: readonly Mode[] = ['plain', 'checksums', 'large'];
const { TCP_CKSUM, UDP_CKSUM, IPV4_CKSUM, TCP_LRO, SCATTER, VLAN_STRIP } = RX_OFFLOAD;
const OFFLOADS: Readonly<Record<Mode, number>> = {
  plain: 0,
  checksums: TCP_CKSUM | UDP_CKSUM | IPV4_CKSUM | VLAN_STRIP,
  large: TCP_CKSUM | UDP_CKSUM | IPV4_CKSUM | VLAN_STRIP | TCP_LRO | SCATTER,
};

export interface Station {
  readonly network: TestNetwork;
  readonly ifname: string;
  readonly port: Port;
}

export class Stations {
  readonly rig: PortRig;
  readonly list: readonly [Station, Station];
  /** Packets that went from one port to the other, and the longest of them. */
  forwarded = 0;
  longest = 0;
  bad = 0;

  private constructor(rig: PortRig, list: readonly [Station, Station]) {
    this.rig = rig;
    this.list = list;
  }

  static async open(driver: 'net_tap' | 'net_af_packet', mode: Mode): Promise<Stations> {
    const rig = await PortRig.open();
    try {
      const stations: Station[] = [];
      const middle = rig.network();
      for (const number of [0, 1]) {
        const network = rig.network();
        const ifname = `s${number}`;
        let port: Port;
        if (driver === 'net_tap') port = await rig.add(network, `net_tap${number}`, `iface=${ifname}`);
        else {
          middle.veth(`p${number}`, ifname, network);
          port = await rig.add(middle, `net_af_packet${number}`, `iface=p${number}`);
          await port.setPromiscuous(true);
        }
        await rig.start(port, { rxOffloads: OFFLOADS[mode], txOffloads: port.info().txOffloads });
        network.waitFor(ifname);
        network.run(`sysctl -qw net.ipv6.conf.${ifname}.disable_ipv6=0`);
        network.run(`ip address add 10.77.0.${number + 1}/24 dev ${ifname}`);
        network.run(`ip address add fd00:77::${number + 1}/64 dev ${ifname} nodad`);
        stations.push({ network, ifname, port });
      }
      const made = new Stations(rig, [stations[0]!, stations[1]!]);
      made.#forward();
      return made;
    } catch (error) {
      await rig.close();
      throw error;
    }
  }

  /** Starts a program at a station. */
  start(station: 0 | 1, ...[program, ...words]: [string, ...string[]]) {
    return this.list[station].network.in(() => spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'] }));
  }

  /** Runs a program at a station; resolves to its output, rejects when it fails or takes too long. */
  run(station: 0 | 1, ...[program, ...words]: [string, ...string[]]): Promise<string> {
    const child = this.start(station, program, ...words);
    return new Promise((resolve, reject) => {
      let said = '';
      const timer = setTimeout(() => child.kill('SIGKILL'), LATE_MS);
      for (const stream of [child.stdout, child.stderr])
        stream.setEncoding('utf8').on('data', (text: string) => {
          said += text;
        });
      child.once('error', reject);
      child.once('close', (code, signal) => {
        clearTimeout(timer);
        if (code === 0) resolve(said);
        else reject(new Error(`${program} ${words.join(' ')} ended with ${signal ?? code}: ${said}`));
      });
    });
  }

  async close(): Promise<void> {
    await this.rig.eal.main.loop.stop();
    const { pool } = this.rig;
    try {
      await until(
        () => pool.available === pool.count,
        () => `${pool.count - pool.available} mbufs are missing`,
      );
    } finally {
      await this.rig.close();
    }
  }

  #forward(): void {
    const { eal } = this.rig;
    const { datapath, loop } = eal.main;
    const handles = eal.main.reserve('stations', BURST * 4);
    const ports = this.list.map(({ port }) => port);
    const rx = ports.map((port) => port.rxQueue(0));
    const tx = ports.map((port) => port.txQueue(0));
    const pass = (from: number) => {
      const n = rx[from]!.burst(handles, BURST);
      for (let i = 0; i < n; i++) this.#see(eal.arena.u32[(handles >>> 2) + i]!);
      const taken = tx[1 - from]!.burst(handles, n);
      datapath.mbufFree(handles + taken * 4, n - taken);
      return n;
    };
    loop.add(polling(() => pass(0) + pass(1), rx));
    loop.start();
  }

  #see(mbuf: number): void {
    const { mbufs } = this.rig.eal;
    this.forwarded++;
    this.longest = Math.max(this.longest, mbufs.packetLength(mbuf));
  }
}
