import assert from 'node:assert/strict';
import { closeSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { NetworkInterface } from './netlink.js';
import { inOpenNetwork, openNetwork } from './netns.js';
import { noNetworkReason, TestNetwork } from './packet-peer-testing.js';
import { openTap } from './tap.js';

const skip = noNetworkReason();

function withInterface(work: (network: TestNetwork, found: NetworkInterface) => void): void {
  const network = new TestNetwork();
  try {
    network.run('ip link add link0 address 02:00:00:00:00:07 type veth peer name link1');
    const found = network.in(() => new NetworkInterface('link0'));
    try {
      work(network, found);
    } finally {
      found.close();
    }
  } finally {
    network.close();
  }
}

test('state of an interface, from another namespace and under another name', { skip }, () => {
  withInterface((network, found) => {
    const { minMtu, maxMtu, ...state } = found.state();
    assert.deepEqual(state, {
      ...{ index: found.index, name: 'link0', type: 1, up: false, running: false, promiscuous: false },
      mtu: 1500,
      ...{ mac: Uint8Array.of(2, 0, 0, 0, 0, 7), txDropped: 0, tapQueues: 0 },
    });
    assert.deepEqual([minMtu, maxMtu], [68, 65_535]);
    network.run('ip link set link0 name other');
    assert.equal(found.news(), 'changed');
    assert.equal(found.state().name, 'other');
    assert.equal(found.speed().mbps, 10_000);
  });
});

test('changes, by us and by others, and news of them', { skip }, () => {
  withInterface((network, found) => {
    assert.equal(found.news(), undefined);
    found.setUp(true);
    found.setMtu(1280);
    found.setMac(Uint8Array.of(2, 1, 2, 3, 4, 5));
    assert.equal(found.news(), 'changed');
    assert.equal(found.news(), undefined);
    let state = found.state();
    assert.deepEqual([state.up, state.running, state.mtu], [true, false, 1280]);
    assert.deepEqual(state.mac, Uint8Array.of(2, 1, 2, 3, 4, 5));
    network.run('ip link set link1 up');
    assert.equal(found.news(), 'changed');
    assert.ok(found.state().running);
    found.setUp(false);
    state = found.state();
    assert.deepEqual([state.up, state.running], [false, false]);
  });
});

test('only what concerns the interface is news, and leaving a bridge is no end', { skip }, () => {
  withInterface((network, found) => {
    network.run('ip link add other0 type veth peer name other1');
    network.run('ip link del other0');
    assert.equal(found.news(), undefined);
    network.run('ip link add bridge0 type bridge');
    network.run('ip link set link0 master bridge0');
    network.run('ip link set link0 nomaster');
    assert.equal(found.news(), 'changed');
    network.run('ip link del link0');
    assert.equal(found.news(), 'removed');
    assert.throws(() => found.state(), { code: 'ENODEV' });
    assert.throws(() => found.setUp(true), { code: 'ENODEV' });
  });
});

test('more news than the socket holds count as a change', { skip }, () => {
  withInterface((network, found) => {
    const other = network.in(() => new NetworkInterface('link1'));
    try {
      for (let i = 0; i < 1000; i++) other.setMtu(1000 + (i & 1));
      assert.equal(found.news(), 'changed');
      assert.equal(found.news(), undefined);
    } finally {
      other.close();
    }
  });
});

test('queues of a TAP interface', { skip }, () => {
  withInterface((network) => {
    const fds = [1, 2, 3].map(() => network.in(() => openTap('tap0', { multiQueue: true })).fd);
    const found = network.in(() => new NetworkInterface('tap0'));
    assert.equal(found.state().tapQueues, 3);
    closeSync(fds.pop()!);
    assert.equal(found.state().tapQueues, 2);
    for (const fd of fds) closeSync(fd);
    found.close();
  });
});

test('refused changes and missing interfaces', { skip }, () => {
  withInterface((network, found) => {
    assert.throws(() => found.setMtu(1), { code: 'EINVAL', message: 'RTM_SETLINK link0: EINVAL' });
    for (const name of ['nowhere', '', 'a name', 'a/b', '..', 'sixteen-letters-']) {
      assert.throws(() => network.in(() => new NetworkInterface(name)), { code: 'ENODEV' }, name);
    }
  });
});

test('closing closes, and a namespace is entered only when it is another one', { skip }, () => {
  const open = () => readdirSync('/proc/self/fd').length;
  const before = open();
  withInterface(() => {});
  const here = openNetwork('this thread');
  assert.equal(
    inOpenNetwork(here, () => 5),
    5,
  );
  closeSync(here);
  const network = new TestNetwork();
  assert.match(
    inOpenNetwork(network.fd, () => network.run('ip -br link')),
    /^lo /,
  );
  network.close();
  assert.equal(open(), before);
});

test('promiscuous mode, the size of packets to be cut, and the speed of a TAP interface', { skip }, () => {
  const network = new TestNetwork();
  const tap = network.in(() => openTap('speedy'));
  const found = network.in(() => new NetworkInterface('speedy'));
  try {
    network.run('ip link set speedy promisc on');
    assert.equal(found.state().promiscuous, true);
    network.run('ip link set speedy promisc off');
    assert.equal(found.state().promiscuous, false);
    found.setGsoLimit(40_000, 30);
    assert.match(network.run('ip -d link show speedy'), /gso_max_size 40000 gso_max_segs 30/);
    assert.throws(() => found.setGsoLimit(1 << 30, 30), { code: 'EINVAL' });
    for (const mbps of [40_000, 100_000]) {
      found.setSpeed(mbps);
      assert.deepEqual(found.speed(), { mbps, fullDuplex: true, autonegotiated: false });
    }
  } finally {
    found.close();
    closeSync(tap.fd);
    network.close();
  }
});
