// What "set verbose" finds in packets; the lines are compared with DPDK's in test/peers/testpmd-pcap.test.ts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PACKET_FLAG } from '../../memory/layout.js';
import { buildPacket, put16 } from '../../offload/offload-testing.js';
import { look, rxFlags, txFlags } from './verbose.js';

const spec = { family: 4, protocol: 17, ipOptions: 0, tcpOptions: 0, payload: 20, tcpFlags: 0, seed: 1 } as const;

test('layers and their lengths', () => {
  const facts = (bytes: Uint8Array) => {
    const { types, l2, l3, l4 } = look(bytes);
    return [types.join(' '), l2, l3, l4];
  };
  assert.deepEqual(facts(buildPacket(spec).bytes), ['L2_ETHER L3_IPV4 L4_UDP', 14, 20, 8]);
  const tcp = buildPacket({ ...spec, protocol: 6, tcpOptions: 3, ipOptions: 2, tag: 7 });
  assert.deepEqual(facts(tcp.bytes), ['L2_ETHER_VLAN L3_IPV4_EXT L4_TCP', 18, 28, 32]);
  const v6 = buildPacket({ ...spec, family: 6 });
  assert.deepEqual(facts(v6.bytes), ['L2_ETHER L3_IPV6 L4_UDP', 14, 40, 8]);
  const fragment = buildPacket(spec);
  put16(fragment.bytes, fragment.l3 + 6, 0x2000);
  assert.deepEqual(facts(fragment.bytes), ['L2_ETHER L3_IPV4 L4_FRAG', 14, 20, 0]);
});

test('nothing is read where nothing is', () => {
  const { bytes } = buildPacket({ ...spec, protocol: 6 });
  for (let length = 0; length <= bytes.length; length++) assert.ok(look(bytes.subarray(0, length)).types.length >= 1);
  assert.deepEqual(look(bytes.subarray(0, 40)).types, ['L2_ETHER', 'L3_IPV4']);
  assert.deepEqual(look(new Uint8Array(14).fill(0x81, 12, 13)).l3, undefined);
});

test("flags by DPDK's names", () => {
  const { RX_IP_GOOD, RX_L4_BAD, VLAN, HASH, TX_TCP_CHECKSUM, TX_IP_CHECKSUM, IPV4 } = PACKET_FLAG;
  assert.equal(
    rxFlags(RX_IP_GOOD | RX_L4_BAD | VLAN | HASH),
    'RTE_MBUF_F_RX_VLAN RTE_MBUF_F_RX_RSS_HASH RTE_MBUF_F_RX_L4_CKSUM_BAD RTE_MBUF_F_RX_IP_CKSUM_GOOD ' +
      'RTE_MBUF_F_RX_VLAN_STRIPPED RTE_MBUF_F_RX_OUTER_L4_CKSUM_UNKNOWN ',
  );
  assert.equal(
    txFlags(TX_TCP_CHECKSUM | TX_IP_CHECKSUM | IPV4),
    'RTE_MBUF_F_TX_IP_CKSUM RTE_MBUF_F_TX_TCP_CKSUM RTE_MBUF_F_TX_IPV4 ',
  );
});
