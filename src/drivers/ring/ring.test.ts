// net_ring: what the conformance suite asks of every driver.
import { randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { conformance, PortWire } from '../conformance.js';
import { initEal } from '../platform.js';

conformance({
  name: 'net_ring, two ports',
  async open(words) {
    const eal = await initEal([...words, '--vdev', 'net_ring0,peer=net_ring1', '--vdev', 'net_ring1']);
    const wire = new PortWire(eal, eal.port('net_ring1'), true);
    return { eal, port: eal.port('net_ring0'), wire, close: () => eal.close() };
  },
});

conformance({
  name: 'net_ring, two environments',
  async open(words) {
    const socket = path.join(tmpdir(), `netvsc-ring-${randomUUID()}`);
    const eal = await initEal([...words, '--vdev', `net_ring0,path=${socket}`]);
    const other = await initEal(['-m', '64', '--vdev', `net_ring0,path=${socket}`]);
    const wire = new PortWire(other, other.port('net_ring0'), true);
    const close = async () => {
      await other.close();
      await eal.close();
    };
    return { eal, port: eal.port('net_ring0'), wire, close };
  },
});
