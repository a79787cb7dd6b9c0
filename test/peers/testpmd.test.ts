// dpdk-testpmd itself, as Debian packages it, on our host: what it shows of our ports, and what it forwards.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { SeenFrame } from '../../src/host/frames-testing.js';
import type { Nic } from '../../src/host/nic.js';
import { buildPacket, checksumField, type PacketSpec } from '../../src/offload/offload-testing.js';
import { formatMac } from '../../src/wire/address-text.js';
import { transportChecksum } from '../../src/wire/checksum.js';
import { DPDKS, type Dpdk, MISSING_DPDK, Program } from './dpdk.js';
import { addressed, macOf, type Rig, STATION_MAC, type Station, startRig, until } from './rig.js';

/** Lines of a log that tell of something that failed. */
const BAD = /error|fail|cannot|invalid|unsupported|unknown|EAL: .*not found/i;
/** What every testpmd says, "errors" being the name of a counter. */
const HARMLESS = /(rx|tx)\w*_errors|[RT]X-errors?:|_errors:|Device error handling mode/;
const PROMPT = 'testpmd> ';
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

class Testpmd {
  readonly #program: Program;

  constructor(t: TestContext, machine: string, dpdk: Dpdk, ...words: string[]) {
    const all = ['-i', '--port-topology=loop', '--total-num-mbufs=4096', ...words];
    const options = { words: all, before: ['stdbuf', '-oL'] };
    this.#program = new Program(t, machine, dpdk, dpdk.testpmd, '0,1', options);
  }

  async ready(): Promise<void> {
    await this.#program.said(/testpmd> $/);
  }

  /** Types commands one after the other; what they printed. */
  async do(...lines: string[]): Promise<string> {
    let all = '';
    for (const line of lines) {
      const since = this.#program.output.length;
      this.#program.type(line);
      const said = await this.#program.said(/\r\n[\s\S]*testpmd> /, since);
      all += said.slice(said.indexOf('\r\n') + 2).replaceAll(PROMPT, '');
    }
    return all;
  }

  /** Ends it; nothing in all that it said is about a failure. */
  async end(): Promise<string> {
    this.#program.type('quit');
    assert.equal(await this.#program.end(), 0, this.#program.output);
    const { output } = this.#program;
    assert.deepEqual(
      output.split('\n').filter((line) => BAD.test(line) && !HARMLESS.test(line)),
      [],
    );
    return output;
  }

  /** Counters of `show port stats`. */
  async stats(port = 0): Promise<Record<string, number>> {
    const text = await this.do(`show port stats ${port}`);
    return Object.fromEntries(
      [...text.matchAll(/([RT]X-\w+):\s+(\d+)/g)].map(([, name, value]) => [name, Number(value)]),
    );
  }

  async xstats(): Promise<Record<string, number>> {
    const text = await this.do('show port xstats 0');
    return Object.fromEntries(
      [...text.matchAll(/^([\w ]+): (\d+)$/gm)].map(([, name, value]) => [name, Number(value)]),
    );
  }
}

for (const why of MISSING_DPDK) test('dpdk-testpmd on our host', { skip: why }, () => {});

for (const dpdk of DPDKS) {
  test(`dpdk-testpmd ${dpdk.name} starts, shows its ports and counters, stops and starts them; no error in its log`, async (t) => {
    const { machine, host } = startRig(t, { nics: 2 });
    const testpmd = new Testpmd(t, machine, dpdk);
    await testpmd.ready();
    for (let i = 0; i < 2; i++) await testpmd.do('port stop all', 'port start all');
    const output = await testpmd.do('show port info all', 'show port xstats all');
    for (const nic of host.state().nics) assert.match(output, new RegExp(`MAC address: ${nic.mac}`, 'i'));
    for (const [name, value] of INFO)
      assert.equal(output.split(`${name}: ${value}\n`).length, 3, `${name}: ${value}\n${output}`);
    assert.match(output, /ipv4 {2}ipv4-tcp {2}ipv4-udp {2}ipv6 {2}ipv6-tcp\n/);
    for (const port of [0, 1]) assert.match(output, new RegExp(`NIC extended statistics for port ${port}`));
    await testpmd.end();
    for (const { deaths, opens } of host.state().nics) assert.deepEqual([deaths, opens], [0, 1]);
  });
}

/** Lines of `show port info` that come from our host. */
const INFO = [
  ['Driver name', 'net_netvsc'],
  ['Link status', 'up'],
  ['Link speed', '10 Gbps'],
  ['Link duplex', 'full-duplex'],
  ['MTU', '1500'],
  ['Hash key size in bytes', '40'],
  ['Redirection table size', '128'],
  ['Max possible RX queues', '64'],
  ['Max possible TX queues', '64'],
] as const;

const UDP: PacketSpec = { family: 4, protocol: 17, ipOptions: 0, tcpOptions: 0, payload: 100, tcpFlags: 0x10, seed: 1 };
const ENOUGH = 300;

/** The driver's queues of 22.11 count as stopped with testpmd, which forwards nothing then. */
for (const dpdk of DPDKS.filter(({ version }) => version > 23)) {
  const start = async (t: TestContext, ...words: string[]) => {
    const rig = startRig(t, { station: true });
    const testpmd = new Testpmd(t, rig.machine, dpdk, ...words);
    await testpmd.ready();
    await testpmd.do(`set eth-peer 0 ${formatMac(STATION_MAC)}`);
    return { ...rig, testpmd };
  };
  /** Frames of all sizes to the port. */
  const frames = ({ nic }: Rig, count: number, sizes: (i: number) => number) =>
    Array.from({ length: count }, (_, i) =>
      addressed(buildPacket({ ...UDP, payload: sizes(i) - 42, seed: i + 1 }).bytes, macOf(nic), STATION_MAC),
    );
  /** No more at once than the driver keeps between two looks of its program, which may be a while on a busy machine. */
  const sendSlowly = async (station: Station, nic: Nic, all: readonly Uint8Array[]) => {
    for (let i = 0; i < all.length; i += 100) {
      station.send(...all.slice(i, i + 100).map((bytes) => ({ bytes })));
      await until(() => nic.state().receiveBuffer.inUse === 0);
    }
  };

  test(`dpdk-testpmd ${dpdk.name} txonly and rxonly: what it counts is what our host counts`, async (t) => {
    const { testpmd, station, nic, ...rig } = await start(t);
    await testpmd.do('set fwd txonly', 'start');
    await until(() => station.seen.length > 20_000);
    await testpmd.do('stop');
    await until(() => nic.state().counters.txPackets === station.seen.length);
    assert.ok(station.take().every(({ bytes }) => bytes.length === 64 && bytes[12] === 8 && bytes[13] === 0));
    // While it receives it hears of the last completions, too.
    await testpmd.do('set fwd rxonly', 'start');
    const all = frames({ nic, station, ...rig }, 2000, (i) => 60 + (i % 1455));
    await sendSlowly(station, nic, all);
    await until(() => nic.state().receiveBuffer.inUse === 0);
    await testpmd.do('stop');
    const stats = await testpmd.stats();
    const { txPackets, txBytes, rxPackets, rxBytes } = nic.state().counters;
    assert.deepEqual([rxPackets, rxBytes], [2000, all.reduce((sum, { length }) => sum + length, 0)]);
    assert.deepEqual(
      [stats['RX-packets'], stats['RX-bytes'], stats['RX-missed'], stats['RX-errors']],
      [rxPackets, rxBytes, 0, 0],
    );
    assert.deepEqual([stats['TX-packets'], stats['TX-bytes'], stats['TX-errors']], [txPackets, txBytes, 0]);
    const xstats = await testpmd.xstats();
    assert.deepEqual([xstats.rx_good_packets, xstats.rx_q0_good_packets], [2000, 2000]);
    await testpmd.end();
  });

  for (const mode of ['mac', 'macswap']) {
    test(`dpdk-testpmd ${dpdk.name} ${mode}: every frame comes back, with other addresses and nothing else changed`, async (t) => {
      const rig = await start(t);
      const { testpmd, station, nic } = rig;
      await testpmd.do(`set fwd ${mode}`, 'start');
      const all = frames(rig, ENOUGH, (i) => 60 + ((i * 37) % 1455));
      await sendSlowly(station, nic, all);
      const back = await station.got(all.length);
      assert.deepEqual(
        back.map(({ bytes }) => hex(bytes)),
        all.map((bytes) => hex(addressed(bytes, STATION_MAC, macOf(nic)))),
      );
      await testpmd.do('stop');
      await testpmd.end();
    });
  }

  test(`dpdk-testpmd ${dpdk.name} io: two ports are a wire between two VLANs of our switch`, async (t) => {
    const rig = startRig(t, { nics: 2, stations: 2 });
    const [left, right] = rig.stations as [Station, Station];
    for (const [i, station] of [left, right].entries()) {
      station.vlan = { mode: 'access', vlan: 10 + i };
      rig.host.nics[i]!.vlan = { mode: 'access', vlan: 10 + i };
    }
    const testpmd = new Testpmd(t, rig.machine, dpdk, '--port-topology=paired');
    await testpmd.ready();
    await testpmd.do('set fwd io', 'start');
    const [first, second] = rig.host.nics;
    for (const [from, nic, to] of [
      [left, first, right],
      [right, second, left],
    ] as const) {
      const all = Array.from({ length: ENOUGH }, (_, i) =>
        addressed(
          buildPacket({ ...UDP, payload: 18 + ((i * 37) % 1455), seed: i + 1 }).bytes,
          to.macs[0]!,
          from.macs[0]!,
        ),
      );
      await sendSlowly(from, nic!, all);
      assert.deepEqual(
        (await to.got(all.length)).map(({ bytes }) => hex(bytes)),
        all.map(hex),
      );
      assert.equal(from.take().length, 0);
    }
    // It counts what it sent once it polls and finds it completed: not any more after a stop.
    for (const port of [0, 1]) {
      for (const end = performance.now() + 5000; ; ) {
        const stats = await testpmd.stats(port);
        if (stats['TX-packets'] !== ENOUGH && performance.now() < end) continue;
        assert.deepEqual([stats['RX-packets'], stats['TX-packets'], stats['RX-missed']], [ENOUGH, ENOUGH, 0]);
        break;
      }
    }
    await testpmd.do('stop');
    await testpmd.end();
  });

  test(`dpdk-testpmd ${dpdk.name} csum: checksums in hardware are our host's; TSO cuts what is too long`, async (t) => {
    const rig = await start(t);
    const { testpmd, station, nic } = rig;
    const hardware = ['ip', 'udp', 'tcp'].map((kind) => `csum set ${kind} hw 0`);
    await testpmd.do('port stop 0', ...hardware, 'tso set 500 0', 'port start 0', 'set fwd csum', 'start');
    for (const family of [4, 6] as const) {
      const udp = buildPacket({ ...UDP, family, payload: 999 });
      station.send({ bytes: addressed(udp.bytes, macOf(nic), STATION_MAC) });
      const [back] = await station.got(1);
      assert.equal(hex(back!.bytes.subarray(12)), hex(udp.bytes.subarray(12)));
      const tcp = buildPacket({ ...UDP, family, protocol: 6, payload: 1400 });
      station.send({ bytes: addressed(tcp.bytes, macOf(nic), STATION_MAC) });
      const segments = await station.got(3);
      const data = (frame: SeenFrame) => frame.bytes.subarray(tcp.payloadAt);
      assert.deepEqual(
        segments.map((frame) => data(frame).length),
        [500, 500, 400],
      );
      assert.equal(hex(Buffer.concat(segments.map(data))), hex(tcp.bytes.subarray(tcp.payloadAt)));
      for (const { bytes } of segments) assert.equal(transportChecksum(bytes, tcp.l3, 6, tcp.l4), 0);
      // It does not pass on what is broken as if it were right: it fills in the checksum of what it got.
      const broken = udp.bytes.slice();
      broken[checksumField(udp)]! ^= 0xff;
      station.send({ bytes: addressed(broken, macOf(nic), STATION_MAC) });
      assert.equal(transportChecksum((await station.got(1))[0]!.bytes, udp.l3, 17, udp.l4), 0);
    }
    assert.equal(nic.state().counters.txLso, 2);
    await testpmd.do('stop');
    await testpmd.end();
  });

  test(`dpdk-testpmd ${dpdk.name}: MTU 9000 and four queues while it runs`, async (t) => {
    const rig = await start(t, '--mbuf-size=9728', '--total-num-mbufs=2048');
    const { testpmd, station, nic } = rig;
    await testpmd.do(
      'port stop 0',
      'port config mtu 0 9000',
      'port config all rxq 4',
      'port config all txq 4',
      'port start 0',
    );
    assert.equal(nic.mtu, 9000);
    const info = await testpmd.do('show port info 0');
    for (const line of ['MTU: 9000', 'Current number of RX queues: 4', 'Current number of TX queues: 4']) {
      assert.ok(info.includes(`${line}\n`), info);
    }
    const all64 = '0xffffffffffffffff';
    const reta = await testpmd.do(`show port 0 rss reta 128 (${all64},${all64})`);
    const table = [...reta.matchAll(/hash index=(\d+), queue=(\d+)/g)].map(([, index, queue]) => [
      Number(index),
      Number(queue),
    ]);
    assert.deepEqual(
      table,
      Array.from({ length: 128 }, (_, i) => [i, i % 4]),
    );
    await testpmd.do('set fwd macswap', 'start');
    const all = frames(rig, ENOUGH, (i) => (i % 3 === 0 ? 9014 : 60 + i));
    await sendSlowly(station, nic, all);
    const back = await station.got(all.length);
    // Frames of different queues overtake each other.
    const sorted = (list: readonly Uint8Array[]) => list.map((bytes) => hex(bytes.subarray(12))).sort();
    assert.deepEqual(sorted(back.map(({ bytes }) => bytes)), sorted(all));
    await testpmd.do('stop');
    const xstats = await testpmd.xstats();
    for (let q = 0; q < 4; q++) assert.ok(xstats[`rx_q${q}_good_packets`]! > 0, `queue ${q}`);
    await testpmd.do('port stop 0', 'port config mtu 0 1500', 'port start 0');
    assert.equal(nic.mtu, 1500);
    await testpmd.end();
  });
}
