import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OFFLOAD, PACKET_FLAG } from '../memory/layout.js';
import { ALL_OFFLOADS, offloadBits, offloadNames, softwareFlags } from './features.js';

const { IPV4, IPV6, TCP, UDP, VLAN, TX_IP_CHECKSUM, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM, TX_TSO } = PACKET_FLAG;

test('names and bits of offloads are each other’s inverse', () => {
  assert.deepEqual(offloadNames(OFFLOAD.LSO6 | OFFLOAD.TCP4_TX), ['TCP4_TX', 'LSO6']);
  assert.equal(offloadBits(offloadNames(ALL_OFFLOADS)), ALL_OFFLOADS);
  assert.throws(() => offloadBits(['LSO5']), /"LSO5" is not one of IPV4_HEADER_TX, /);
  assert.throws(() => offloadBits(['toString']), RangeError);
});

test('software does what was not granted, and nothing else', () => {
  const tcp4 = IPV4 | TCP | TX_TCP_CHECKSUM | TX_IP_CHECKSUM;
  assert.equal(softwareFlags(tcp4, ALL_OFFLOADS), 0);
  assert.equal(softwareFlags(tcp4, 0), TX_TCP_CHECKSUM | TX_IP_CHECKSUM);
  assert.equal(softwareFlags(tcp4, OFFLOAD.TCP6_TX | OFFLOAD.IPV4_HEADER_TX), TX_TCP_CHECKSUM);
  assert.equal(softwareFlags(IPV6 | UDP | TX_UDP_CHECKSUM | VLAN, OFFLOAD.UDP6_TX), VLAN);
  assert.equal(softwareFlags(IPV6 | UDP | TX_UDP_CHECKSUM | VLAN, OFFLOAD.UDP4_TX | OFFLOAD.VLAN), TX_UDP_CHECKSUM);
});

test('a large send needs LSO of its family; UDP is always cut in software', () => {
  const large4 = IPV4 | TCP | TX_TSO | TX_TCP_CHECKSUM | TX_IP_CHECKSUM;
  assert.equal(softwareFlags(large4, OFFLOAD.LSO4), 0);
  assert.equal(softwareFlags(large4 | VLAN, OFFLOAD.LSO4), VLAN);
  assert.equal(softwareFlags(large4, OFFLOAD.LSO6), TX_TSO | TX_TCP_CHECKSUM | TX_IP_CHECKSUM);
  const large6 = IPV6 | UDP | TX_TSO | TX_UDP_CHECKSUM;
  assert.equal(softwareFlags(large6, ALL_OFFLOADS), TX_TSO | TX_UDP_CHECKSUM);
});
