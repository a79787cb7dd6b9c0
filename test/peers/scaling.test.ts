// Receive-side scaling between DPDK's driver and our host: what lands on which queue, and under which hash, judged by DPDK's
// own software Toeplitz (pmd/traffic.c).
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { buildPacket } from '../../src/offload/offload-testing.js';
import { DPDKS, type Dpdk, MISSING_DPDK, Pmd, type PmdAnswer } from './dpdk.js';
import { addressed, ECHO_IP, ECHO_MAC, macOf, type Rig, RSS, RX_OFFLOAD, STATION_MAC, startRig } from './rig.js';

for (const why of MISSING_DPDK) test("DPDK's queues on our host", { skip: why }, () => {});

const TYPES = RSS.IPV4 | RSS.IPV4_TCP | RSS.IPV6 | RSS.IPV6_TCP;
/** Not the driver's own. */
const KEY = Array.from({ length: 40 }, (_, i) => ((i * 73 + 41) & 0xff).toString(16).padStart(2, '0')).join('');
const ECHO = { mac: ECHO_MAC, source: '10.1.0.1', target: ECHO_IP };

interface Account {
  readonly received: number;
  readonly sent?: number;
  readonly hashed: number;
  readonly unhashed: number;
  readonly wrong: number;
  readonly astray: number;
  readonly queues: readonly number[];
}
const account = (answer: PmdAnswer) => answer as unknown as Account;

async function startQueues(t: TestContext, dpdk: Dpdk, queues: number, rig: Rig, types = TYPES): Promise<Pmd> {
  const pmd = new Pmd(t, rig.machine, dpdk);
  await pmd.ready();
  await pmd.do('configure', queues > 1 ? { rxq: queues, rss: types, rxoffloads: RX_OFFLOAD.VLAN_STRIP } : {});
  await pmd.do('start');
  return pmd;
}

/** What each channel of the host has sent and received, in the order of the queues. */
const perChannel = ({ nic }: Rig, counter: 'rxPackets' | 'txPackets'): number[] => {
  const { counters, subchannels } = nic.state();
  const subs = subchannels.map((subchannel) => subchannel.counters[counter]!);
  return [counters[counter]! - subs.reduce((sum, n) => sum + n, 0), ...subs];
};

for (const dpdk of DPDKS) {
  for (const queues of [1, 4, 64]) {
    test(`DPDK ${dpdk.name}, ${queues} queue(s): every queue carries traffic, each packet where its hash belongs`, async (t) => {
      const rig = startRig(t, { nic: { subchannelRingBytes: 256 << 10 } });
      const pmd = await startQueues(t, dpdk, queues, rig);
      const count = 6400;
      const seen = account(await pmd.do('flows', { ...ECHO, count, flows: 640, shortest: 64, longest: 900 }));
      assert.deepEqual([seen.sent, seen.received], [count, count]);
      assert.equal(seen.queues.length, queues);
      assert.ok(
        seen.queues.every((n) => n > 0),
        `${seen.queues}`,
      );
      const expected = queues > 1 ? { hashed: count, unhashed: 0 } : { hashed: 0, unhashed: count };
      assert.deepEqual({ hashed: seen.hashed, unhashed: seen.unhashed }, expected);
      assert.deepEqual([seen.wrong, seen.astray], [0, 0]);
      const { subchannels, receiveScaling, deaths, lostToDeadChannels } = rig.nic.state();
      assert.deepEqual([subchannels.length, receiveScaling], [queues - 1, queues > 1]);
      assert.deepEqual([deaths, lostToDeadChannels], [0, 0]);
      // Both sides count the same, queue by queue. What is sent is completed on the channel that it came by.
      assert.deepEqual(perChannel(rig, 'rxPackets'), seen.queues);
      assert.deepEqual(perChannel(rig, 'txPackets'), Array(queues).fill(count / queues));
      // The last completions may lie on queues that it looked at before the last answer.
      assert.equal((await pmd.numbers('collect', { count: 1, ms: 5 })).received, 0);
      const xstats = await pmd.numbers('xstats');
      for (let q = 0; q < queues; q++) {
        assert.equal(xstats[`rx_q${q}_good_packets`], seen.queues[q]);
        assert.equal(xstats[`tx_q${q}_good_packets`], count / queues);
      }
      await pmd.end();
    });
  }

  test(`DPDK ${dpdk.name}: another key and another table take effect with the next packet`, async (t) => {
    const rig = startRig(t);
    const pmd = await startQueues(t, dpdk, 4, rig);
    const run = async () => {
      const seen = account(await pmd.do('flows', { ...ECHO, count: 2000, flows: 200 }));
      assert.deepEqual([seen.received, seen.hashed, seen.wrong, seen.astray], [2000, 2000, 0, 0]);
      return seen.queues;
    };
    const first = await run();
    await pmd.do('rss', { types: TYPES, key: KEY });
    assert.equal((await pmd.do('show-rss')).key, KEY);
    const second = await run();
    assert.notDeepEqual(second, first, 'other hashes, other queues');
    assert.ok(second.every((n) => n > 0));
    for (const [list, used] of [
      ['0,1', [true, true, false, false]],
      ['3', [false, false, false, true]],
      ['3,2,1,0', [true, true, true, true]],
    ] as const) {
      await pmd.do('reta', { queues: list });
      assert.deepEqual(
        (await run()).map((n) => n > 0),
        used,
        list,
      );
    }
    assert.equal((await pmd.try('reta', { queues: '0,4' })).ok, false, 'there is no queue 4');
    assert.equal(rig.nic.state().deaths, 0);
    await pmd.end();
  });

  test(`DPDK ${dpdk.name}: TCP is hashed by its ports, other packets by their addresses, what is not IP not at all`, async (t) => {
    const rig = startRig(t, { station: true });
    const pmd = await startQueues(t, dpdk, 4, rig);
    const mac = macOf(rig.nic);
    const kinds = ([4, 6] as const).flatMap((family) =>
      ([6, 17] as const).map((protocol) => ({
        family,
        protocol,
        ipOptions: 0,
        tcpOptions: 0,
        payload: 60,
        tcpFlags: 16,
      })),
    );
    for (const kind of kinds) {
      // All addresses and ports are random.
      const frames = Array.from({ length: 64 }, (_, i) =>
        addressed(buildPacket({ ...kind, seed: 100 + i }).bytes, mac, STATION_MAC),
      );
      rig.station.send(...frames.map((bytes) => ({ bytes })));
      const seen = account(await pmd.do('collect', { count: frames.length }));
      assert.deepEqual([seen.received, seen.hashed, seen.wrong, seen.astray], [64, 64, 0, 0], JSON.stringify(kind));
      assert.ok(
        seen.queues.every((n) => n > 0),
        `${seen.queues}`,
      );
    }
    const arp = addressed(
      Uint8Array.from({ length: 60 }, (_, i) => (i === 12 ? 8 : i === 13 ? 6 : i)),
      mac,
      STATION_MAC,
    );
    rig.station.send({ bytes: arp }, { bytes: arp, tci: 5 });
    const seen = account(await pmd.do('collect', { count: 2 }));
    assert.deepEqual([seen.received, seen.unhashed, seen.wrong], [2, 2, 0]);
    // A tag is no part of the hash.
    const tagged = addressed(buildPacket({ ...kinds[0]!, seed: 7 }).bytes, mac, STATION_MAC);
    rig.station.send({ bytes: tagged, tci: 0x2005 });
    const last = account(await pmd.do('collect', { count: 1 }));
    assert.deepEqual([last.received, last.hashed], [1, 1]);
    await pmd.end();
  });

  test(`DPDK ${dpdk.name}: more transmit than receive queues`, async (t) => {
    const rig = startRig(t);
    const pmd = new Pmd(t, rig.machine, dpdk);
    await pmd.ready();
    await pmd.do('configure', { rxq: 2, txq: 4, rss: TYPES });
    await pmd.do('start');
    const seen = account(await pmd.do('flows', { ...ECHO, count: 2000, flows: 200 }));
    assert.deepEqual([seen.received, seen.wrong, seen.astray], [2000, 0, 0]);
    assert.deepEqual(perChannel(rig, 'txPackets'), [500, 500, 500, 500]);
    assert.deepEqual(perChannel(rig, 'rxPackets'), [...seen.queues, 0, 0]);
    await pmd.end();
  });
}
