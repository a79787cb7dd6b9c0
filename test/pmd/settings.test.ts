// What host generations take and refuse of a port's settings, and that the host does what it took: profiles of our host behind a machine
// directory, each in a thread of its own.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { RSS_TYPE, RX_OFFLOAD, TX_OFFLOAD } from '../../src/ethdev/constants.js';
import { PortError } from '../../src/ethdev/errors.js';
import type { Port } from '../../src/ethdev/port.js';
import type { ProfileName } from '../../src/host/profiles.js';
import { type HostThread, portOf, startEal, startHost, startPort } from './rig.js';

const { TCP_LRO, TCP_CKSUM, UDP_CKSUM } = RX_OFFLOAD;

async function portOn(t: TestContext, profile: ProfileName): Promise<{ port: Port; host: HostThread }> {
  const host = await startHost(t, { profile, nics: [{}], megabytes: 192 });
  const eal = await startEal(host, '-m', '8');
  const port = portOf(eal, host, 0);
  const pool = eal.createMempool('mbufs', { count: 512 });
  await startPort(port, pool);
  return { port, host };
}

/** What the host has switched on for the guest. */
const offloadsAt = async (host: HostThread) => (await host.state()).nics[0]!.offloads;

async function refused(work: Promise<unknown>, text: RegExp): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(error instanceof PortError, String(error));
    assert.match(error.message, text);
    return true;
  });
}

const NO_LRO = /TCP_LRO\): receive coalescing came with Windows Server 2019 \(NVSP 6.1\), the host has NVSP/;
const NO_UDP = /UDP_CKSUM\): UDP checksums came with Windows Server 2012 R2 \(NVSP 5\), the host has NVSP/;
const NO_QUEUES = /channels came with Windows Server 2012 R2 \(NVSP 5\), the host has NVSP/;

for (const [profile, has] of [
  ['ws2008r2', { lro: false, udp: false, queues: false, udpHash: false }],
  ['ws2012', { lro: false, udp: false, queues: false, udpHash: false }],
  ['ws2012r2', { lro: false, udp: true, queues: true, udpHash: false }],
  ['ws2016', { lro: false, udp: true, queues: true, udpHash: false }],
  ['ws2019', { lro: true, udp: true, queues: true, udpHash: true }],
  ['azure', { lro: true, udp: true, queues: true, udpHash: true }],
] as const) {
  test(`${profile}: what it has can be switched while packets flow, what it has not is refused with the reason`, async (t) => {
    const { port, host } = await portOn(t, profile);
    const rx = (rxOffloads: number) => port.setOffloads({ rxOffloads });
    if (has.lro) {
      assert.ok(!(await offloadsAt(host)).includes('RSC'));
      await rx(TCP_LRO);
      assert.ok((await offloadsAt(host)).includes('RSC'));
      await rx(0);
      assert.ok(!(await offloadsAt(host)).includes('RSC'));
    } else await refused(rx(TCP_LRO), NO_LRO);
    if (has.udp) {
      await rx(UDP_CKSUM);
      assert.ok((await offloadsAt(host)).includes('UDP4_RX'));
      await port.setOffloads({ rxOffloads: 0, txOffloads: TX_OFFLOAD.UDP_CKSUM });
      assert.deepEqual(
        (await offloadsAt(host)).filter((name) => name.startsWith('UDP')),
        ['UDP4_TX', 'UDP6_TX'],
      );
    } else {
      await refused(rx(UDP_CKSUM), NO_UDP);
      await refused(port.setOffloads({ txOffloads: TX_OFFLOAD.UDP_CKSUM }), NO_UDP);
    }
    // IPv6 checksums came with 2012, and the device API knows no family.
    if (profile === 'ws2008r2')
      await refused(rx(TCP_CKSUM), /TCP_CKSUM\): the host does not offer TCP checksums of both/);
    else await rx(TCP_CKSUM);

    await port.stop();
    const queues = (count: number) => port.configure({ rxQueues: count, txQueues: count });
    if (has.queues) {
      await refused(queues(65), /expected 0 to 64, got 65 \(the host has 64 channels at most\)/);
      await queues(4);
      assert.equal(port.info().channels, 4);
      assert.deepEqual(port.flowHash('tcp6'), { level: 'L4', receive: true });
      assert.deepEqual(port.flowHash('udp4'), { level: 'L4', receive: false });
      await port.setFlowHash('udp4', 'L4');
      assert.deepEqual(port.flowHash('udp4'), { level: 'L4', receive: has.udpHash });
      await port.setFlowHash('tcp4', 'L3');
      const TYPES = 0x100 | 0x400 | 0x1000 | (has.udpHash ? 0x4000 : 0);
      assert.equal((await host.state()).nics[0]!.hashTypes, TYPES);
      if (!has.udpHash) await refused(port.setRss({ types: RSS_TYPE.IPV6_UDP }), /the host does not hash UDP by ports/);
    } else {
      await refused(queues(2), NO_QUEUES);
      await refused(port.setRss({ table: [0] }), /receive-side scaling: channels came with/);
    }
    // Larger than its frames: not an error of the guest's, it just gives less (facts/hyper-v-host.md 3.3).
    await refused(port.setMtu(9203), /MTU: the host refused 9203, it gave 1500/);
    await port.setMtu(9202);
    assert.equal(port.mtu, 9202);
  });

  test(`${profile}: sections of its buffers, as many as are asked for`, async (t) => {
    const { port, host } = await portOn(t, profile);
    await port.stop();
    const mib = profile === 'ws2008r2' ? 15 : 31;
    const { rx, tx, maxRx, maxTx } = port.rings();
    assert.deepEqual([rx, maxRx], [Math.floor((mib << 20) / 1806), Math.floor((mib << 20) / 1806)]);
    assert.deepEqual([tx, maxTx], [2559, 2559]);
    await port.setRings({ rx: 500, tx: 170 });
    const now = port.rings();
    assert.ok(now.rx >= 500 && now.rx <= 502, `${now.rx} sections`);
    assert.deepEqual([now.tx, now.maxRx, now.maxTx], [170, maxRx, maxTx]);
    assert.equal((await host.state()).nics[0]!.receiveBuffer.suballocations, now.rx);
    await port.setRings({ rx: 1, tx: 1 });
    const least = port.rings();
    assert.ok(least.rx >= 10 && least.rx <= 12 && least.tx === 10, `${least.rx} and ${least.tx} sections`);
    await port.setRings({ rx: 1e6 });
    assert.equal(port.rings().rx, maxRx);
    await port.start();
  });
}
