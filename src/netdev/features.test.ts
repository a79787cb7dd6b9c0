import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RX_OFFLOAD, TX_OFFLOAD } from '../ethdev/constants.js';
import { TAP_OFFLOAD } from '../memory/os/tap.js';
import { type FeatureDevice, featureFault, featureSettings, featureStates } from './features.js';
import { PAIR_OPTION } from './pair-memory.js';

const { TCP_CKSUM, UDP_CKSUM, TCP_TSO, VLAN_INSERT } = TX_OFFLOAD;
const able: FeatureDevice = {
  rxOffloads: RX_OFFLOAD.TCP_CKSUM | RX_OFFLOAD.UDP_CKSUM | RX_OFFLOAD.TCP_LRO | RX_OFFLOAD.RSS_HASH,
  txOffloads: TCP_CKSUM | UDP_CKSUM | TCP_TSO | VLAN_INSERT,
  maxTsoBytes: { ipv4: 62_780, ipv6: 62_780 },
};
const stateOf = (device: FeatureDevice, name: string, wishes: Record<string, boolean> = {}) => {
  const found = featureStates(device, new Map(Object.entries(wishes))).find((state) => state.name === name)!;
  return { on: found.on, wanted: found.wanted, reason: found.reason };
};
const settingsOf = (device: FeatureDevice, wishes: Record<string, boolean> = {}) =>
  featureSettings(device, featureStates(device, new Map(Object.entries(wishes))));
const { CSUM, TSO4, TSO6 } = TAP_OFFLOAD;

test('everything that the device can is on, as with hv_netvsc; datagrams are merged on request', () => {
  const on = featureStates(able, new Map()).flatMap((state) => (state.on ? [state.name] : []));
  assert.deepEqual(on, [
    ...['tx-scatter-gather', 'tx-checksum-ipv4', 'tx-checksum-ipv6', 'highdma', 'tx-vlan-hw-insert'],
    ...['rx-vlan-hw-parse', 'tx-generic-segmentation', 'rx-gro', 'rx-lro', 'tx-tcp-segmentation'],
    ...['tx-tcp6-segmentation', 'rx-hashing', 'rx-checksum'],
  ]);
  const { kernel, pair, udp, rxOffloads, txOffloads } = settingsOf(able);
  assert.deepEqual([kernel, pair, udp], [CSUM | TSO4 | TSO6, PAIR_OPTION.GRO, false]);
  assert.deepEqual([rxOffloads, txOffloads], [able.rxOffloads, able.txOffloads]);
  assert.equal(settingsOf(able, { 'rx-udp-gro-forwarding': true }).udp, true);
  assert.equal(settingsOf(able, { 'rx-udp-gro-forwarding': true, 'rx-gro': false }).udp, false);
});

test('what the device cannot stays wanted, and off, with the reason', () => {
  const poor: FeatureDevice = { rxOffloads: 0, txOffloads: 0, reasons: { TCP_LRO: 'the host is too old' } };
  assert.deepEqual(stateOf(poor, 'rx-lro'), { on: false, wanted: true, reason: 'the host is too old' });
  assert.match(stateOf(poor, 'tx-checksum-ipv4').reason!, /no TCP checksums/);
  assert.match(stateOf(poor, 'tx-tcp-segmentation').reason!, /cuts no large packets/);
  assert.deepEqual(stateOf(poor, 'rx-lro', { 'rx-lro': false }), { on: false, wanted: false, reason: undefined });
  assert.equal(settingsOf(poor).kernel, 0);
  // Its driver fills in UDP checksums where the host does not.
  const older = { ...able, txOffloads: TCP_CKSUM | TCP_TSO, reasons: { TCP_CKSUM: 'no', UDP_CKSUM: 'no' } };
  assert.equal(settingsOf(older).kernel, CSUM | TSO4 | TSO6);
  assert.equal(settingsOf({ ...able, maxTsoBytes: { ipv4: 62_780, ipv6: 0 } }).kernel, CSUM | TSO4);
});

test('features go with those that they need', () => {
  const tso = stateOf(able, 'tx-tcp-segmentation', { 'tx-scatter-gather': false });
  assert.deepEqual(tso, { on: false, wanted: true, reason: 'it needs tx-scatter-gather' });
  assert.equal(settingsOf(able, { 'tx-scatter-gather': false }).kernel, CSUM);
  // One switch of the TAP interface for both families.
  const half = { 'tx-checksum-ipv4': false };
  assert.equal(settingsOf(able, half).kernel, 0);
  assert.match(stateOf(able, 'tx-checksum-ipv6', half).reason!, /one switch for both families/);
  assert.equal(stateOf(able, 'tx-tcp6-segmentation', half).on, false);
});

test('verdicts are dropped and packets stay as they are when the user wants it', () => {
  assert.equal(settingsOf(able, { 'rx-checksum': false, 'rx-gro': false }).pair, PAIR_OPTION.UNCHECKED);
  assert.equal(settingsOf(able, { 'rx-lro': false }).rxOffloads, able.rxOffloads & ~RX_OFFLOAD.TCP_LRO);
  assert.equal(settingsOf(able, { 'rx-hashing': false }).rxOffloads, able.rxOffloads & ~RX_OFFLOAD.RSS_HASH);
});

test('what cannot be changed is refused by name', () => {
  assert.match(featureFault('nonsense', true)!, /feature nonsense: there is no such feature/);
  assert.match(featureFault('loopback', true)!, /it is fixed off/);
  assert.match(featureFault('highdma', false)!, /it is fixed on/);
  assert.equal(featureFault('highdma', true), undefined);
  assert.equal(featureFault('rx-lro', false), undefined);
});
