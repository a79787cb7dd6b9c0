// net_ring: what the conformance suite asks of every driver, and what is its own.
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
