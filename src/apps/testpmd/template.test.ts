// Made packets against bytes that DPDK 22.11's testpmd sent to net_pcap.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { flowgenTemplate, txonlyTemplate } from './template.js';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const peer = '02:00:00:00:00:00';
const own = '02:70:63:61:70:00';

test('txonly', () => {
  const expected = '020000000000027063617000080045000032000000004011ee93c6120001c612000200090009001e0000';
  assert.equal(hex(txonlyTemplate(64, peer, own, false, 0).bytes), expected.padEnd(128, '0'));
  const long = '020000000000027063617000080045000096000000004011ee2fc6120001c61200020009000900820000';
  assert.equal(hex(txonlyTemplate(164, peer, own, false, 0).bytes), long.padEnd(328, '0'));
  assert.equal(txonlyTemplate(64, peer, own, false, 0).flows, 0);
});

test('flowgen counts the FCS', () => {
  const expected = '00010203040100010203040008004500002e00000000401164c50afe00000afd000003e803e9001a0000';
  const { bytes, flows, flowOffset, flowBase } = flowgenTemplate(64, 1024);
  assert.equal(hex(bytes), expected.padEnd(120, '0'));
  assert.deepEqual([flows, flowOffset, flowBase], [1024, 30, 0x0afd0000]);
});

test('no packet is shorter than its headers', () => {
  assert.equal(flowgenTemplate(42, 1).bytes.length, 42);
});
