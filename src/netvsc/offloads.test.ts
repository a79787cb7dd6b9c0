import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { OFFLOAD } from '../memory/layout.js';
import { offloadCapabilities } from './fake-host.js';
import { grantOffloads, offloadParameters, offloadsInForce } from './offloads.js';

const LIMITS = { nvspVersion: 0x60001, rsc: true, maxTransferBytes: 0xefffffff };

/** Capabilities with u32 cells replaced, by byte offset. */
function changed(cells: Record<number, number>): Uint8Array {
  const bytes = offloadCapabilities();
  for (const [at, value] of Object.entries(cells)) new DataView(bytes.buffer).setUint32(Number(at), value, true);
  return bytes;
}

const lost = (capabilities: Uint8Array): string[] => {
  const all = grantOffloads('x', offloadCapabilities(), LIMITS).bits;
  const { bits } = grantOffloads('x', capabilities, LIMITS);
  return Object.entries(OFFLOAD)
    .filter(([, bit]) => all & ~bits & bit)
    .map(([name]) => name);
};

test('an offload needs every bit that it stands on', () => {
  assert.deepEqual(lost(changed({ 8: 0x155 & ~0x4 })), ['TCP4_TX', 'LSO4'], 'IPv4 without TCP options');
  assert.deepEqual(lost(changed({ 8: 0x155 & ~0x10 })), ['TCP4_TX', 'LSO4']);
  assert.deepEqual(lost(changed({ 8: 0x155 & ~0x40 })), ['UDP4_TX']);
  assert.deepEqual(lost(changed({ 8: 0x155 & ~0x1 })), ['IPV4_HEADER_TX'], 'IPv4 without IP options');
  assert.deepEqual(lost(changed({ 16: 0 })), ['IPV4_HEADER_RX', 'TCP4_RX', 'UDP4_RX']);
  assert.deepEqual(lost(changed({ 24: 0x55 & ~0x1 })), ['TCP6_TX', 'LSO6'], 'IPv6 without extension headers');
  assert.deepEqual(lost(changed({ 24: 0x55 & ~0x40 })), ['UDP6_TX']);
  assert.deepEqual(lost(changed({ 32: 0 })), ['TCP6_RX', 'UDP6_RX']);
  assert.deepEqual(lost(changed({ 4: 1 })), ['IPV4_HEADER_TX', 'TCP4_TX', 'UDP4_TX', 'LSO4'], 'another encapsulation');
  assert.deepEqual(lost(changed({ 80: 0 })), ['LSO4']);
  assert.deepEqual(lost(changed({ 92: 0 })), ['LSO6']);
  assert.deepEqual(lost(changed({ 104: 0x1 })), ['LSO6'], 'LSO for IPv6 without TCP options');
});

test('LSO sizes: the least of 64 KiB, what the host takes, and its transfer size', () => {
  assert.deepEqual(grantOffloads('x', offloadCapabilities(), LIMITS).lsoMax4, 62780);
  assert.deepEqual(grantOffloads('x', changed({ 84: 0xffffffff }), LIMITS).lsoMax4, 65536);
  assert.deepEqual(grantOffloads('x', changed({ 96: 9000 }), LIMITS).lsoMax6, 9000);
  assert.deepEqual(grantOffloads('x', offloadCapabilities(), { ...LIMITS, maxTransferBytes: 4096 }).lsoMax6, 3840);
});

test('RSC: for both families, from NVSP 6.1, and only when wanted', () => {
  const capabilities = offloadCapabilities();
  capabilities.set([1, 1], 144);
  assert.ok(grantOffloads('x', capabilities, LIMITS).bits & OFFLOAD.RSC);
  assert.equal(grantOffloads('x', capabilities, { ...LIMITS, nvspVersion: 0x60000 }).bits & OFFLOAD.RSC, 0);
  assert.equal(grantOffloads('x', capabilities, { ...LIMITS, rsc: false }).bits & OFFLOAD.RSC, 0);
  capabilities[145] = 0;
  assert.equal(grantOffloads('x', capabilities, LIMITS).bits & OFFLOAD.RSC, 0);
});

test('the parameters say on or off for each, and keep what an old host does not know', () => {
  const { bits } = grantOffloads('x', changed({ 16: 0, 92: 0 }), LIMITS);
  const parameters = offloadParameters(bits, 0x60001);
  assert.deepEqual([...parameters.subarray(0, 4)], [0x80, 3, parameters.length, 0]);
  assert.deepEqual([...parameters.subarray(4, 15)], [2, 2, 2, 4, 4, 0, 0, 2, 1, 0, 0]);
  assert.deepEqual([...parameters.subarray(22, 24)], [1, 1], 'RSC off');
  const old = offloadParameters(bits, 0x40000);
  assert.equal(old.length, 22);
  assert.deepEqual([...old.subarray(0, 13)], [0x80, 3, 22, 0, 2, 2, 0, 4, 0, 0, 0, 2, 1]);
});

test('an older or shorter structure is read as far as it goes, garbage is refused', () => {
  const old = offloadCapabilities().subarray(0, 112);
  old.set([0xa7, 1, 112, 0]);
  assert.ok(grantOffloads('x', old, LIMITS).bits & OFFLOAD.LSO6);
  assert.throws(
    () => grantOffloads('netvsc x', new Uint8Array(156), LIMITS),
    /netvsc x: RNDIS query offload capabilities: /,
  );
  assert.equal(offloadsInForce(offloadCapabilities().subarray(0, 111)), undefined);
  const all = Object.values(OFFLOAD).reduce((sum: number, bit) => sum | bit, 0);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const bits = offloadsInForce(bytes) ?? 0;
      assert.equal(bits & ~all, 0);
    }),
  );
});
