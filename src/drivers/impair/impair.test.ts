// net_impair: the conformance suite through it, with nothing to do and with delays.
import { conformance, PortWire } from '../conformance.js';
import { initEal } from '../platform.js';

const ring = ['--vdev', 'net_ring0,peer=net_ring1', '--vdev', 'net_ring1'];

async function open(words: readonly string[], impairments: string) {
  const eal = await initEal([...words, ...ring, '--vdev', `net_impair0,port=net_ring0${impairments}`]);
  const wire = new PortWire(eal, eal.port('net_ring1'), true);
  return { eal, port: eal.port('net_impair0'), wire, close: () => eal.close() };
}

conformance({ name: 'net_impair around net_ring', open: (words) => open(words, '') });

conformance({
  name: 'net_impair with delays around net_ring',
  skips: {
    'tx takes from the front, and what it does not take stays': 'a delay line takes packets as fast as they are given',
  },
  open: (words) => open(words, ',delay_us=200,jitter_us=100,limit=16384'),
});
