// net_capture: the conformance suite through it.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after } from 'node:test';
import { conformance, PortWire } from '../conformance.js';
import { initEal } from '../platform.js';

const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-capture-'));
after(() => rmSync(folder, { recursive: true, force: true }));

conformance({
  name: 'net_capture around net_ring',
  async open(words) {
    const ring = ['--vdev', 'net_ring0,peer=net_ring1', '--vdev', 'net_ring1'];
    const file = path.join(folder, 'conformance.pcapng');
    const eal = await initEal([...words, ...ring, '--vdev', `net_capture0,port=net_ring0,file=${file}`]);
    const wire = new PortWire(eal, eal.port('net_ring1'), true);
    return { eal, port: eal.port('net_capture0'), wire, close: () => eal.close() };
  },
});
