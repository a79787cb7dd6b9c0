// net_tap as its owner sees the interface behind it: carrier, queues that come and go, offloads, news.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { PortError } from '../../ethdev/errors.js';
import { noNetworkReason } from '../../memory/os/packet-peer-testing.js';
import { TAP_OFFLOAD } from '../../memory/os/tap.js';
import { PortRig, until } from '../interface-testing.js';

const skip = noNetworkReason();

async function withRig(work: (rig: PortRig) => Promise<void>): Promise<void> {
  const rig = await PortRig.open();
  try {
    await work(rig);
  } finally {
    await rig.close();
  }
}

test('carrier, speed, MTU and address; changes by others are news', { skip }, async () => {
  await withRig(async (rig) => {
    const network = rig.network();
    const port = await rig.add(network, 'net_tap0', 'iface=tap0');
    const kernel = port.kernel!;
    await rig.start(port);
    const seen: number[] = [];
    kernel.onChange = ({ mtu }) => seen.push(mtu);
    kernel.setCarrier(false);
    assert.match(network.run('ip -br link show tap0'), /DOWN/);
    kernel.setCarrier(true);
    kernel.setSpeed(25_000);
    assert.equal(port.link().speedMbps, 25_000);
    kernel.setMtu(4000); // also while the port is started
    assert.equal(port.mtu, 4000);
    kernel.setMac('02:00:00:00:00:99');
    assert.equal(port.mac, '02:00:00:00:00:99');
    network.run('ip link set tap0 mtu 1300');
    await until(
      () => seen.at(-1) === 1300,
      () => `news of MTU ${seen.at(-1)}`,
    );
    assert.throws(() => kernel.setMtu(10), PortError);
    assert.equal(kernel.setOffloads(TAP_OFFLOAD.CSUM | TAP_OFFLOAD.TSO4), TAP_OFFLOAD.CSUM | TAP_OFFLOAD.TSO4);
  });
});

test('a carrier that is off stays off when the port starts: the kernel sends nothing that would be lost', {
  skip,
}, async () => {
  await withRig(async (rig) => {
    const network = rig.network();
    const port = await rig.add(network, 'net_tap0', 'iface=tap0');
    const kernel = port.kernel!;
    await rig.start(port);
    const link = () => network.run('ip link show tap0');
    for (const carrier of [false, true]) {
      kernel.setCarrier(carrier);
      await port.stop();
      assert.match(link(), /NO-CARRIER,.*,UP/);
      await port.start();
      assert.match(link(), carrier ? /,LOWER_UP/ : /NO-CARRIER,.*,UP/);
    }
  });
});

test('the kernel uses as many queues as it is told; those that go can be emptied before', { skip }, async (t) => {
  await withRig(async (rig) => {
    const network = rig.network();
    const port = await rig.add(network, 'net_tap0', 'iface=tap0');
    const kernel = port.kernel!;
    kernel.setQueues(2);
    await rig.start(port, { rxQueues: 4, txQueues: 4 });
    assert.match(network.run('ip -d link show tap0'), /numqueues 2/);
    kernel.setQueues(4);
    assert.match(network.run('ip -d link show tap0'), /numqueues 4/);
    network.run('ip address add 10.99.0.1/24 dev tap0');
    network.run('ip neighbor add 10.99.0.2 lladdr 02:00:00:00:00:02 dev tap0');
    const send = (flows: string) => {
      const bash = `for p in ${flows}; do exec 3> /dev/udp/10.99.0.2/$p; echo x >&3; done`;
      assert.equal(network.in(() => spawnSync('bash', ['-c', bash])).status, 0);
    };
    send('{1000..1039}');
    assert.equal(kernel.holds(1), true);
    if (!kernel.gather(true)) return t.skip('no eBPF here');
    const datagram = ({ bytes }: { bytes: Uint8Array }) => bytes[12] === 8 && bytes[13] === 0 && bytes[23] === 17;
    await rig.expect(port, 40, datagram);
    assert.equal(kernel.holds(1), false);
    send('{2000..2039}');
    assert.equal(kernel.holds(1), false, 'all of it goes to queue 0');
    assert.equal(kernel.holds(0), true);
    await rig.expect(port, 40, datagram);
    kernel.setQueues(1);
    assert.match(network.run('ip -d link show tap0'), /numqueues 1/);
    kernel.setQueues(4);
    kernel.gather(false);
    send('{3000..3039}');
    assert.equal(kernel.holds(1), true, 'the kernel chooses again');
  });
});
