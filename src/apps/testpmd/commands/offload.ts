// csum, tso, mac_addr, vlan.
import { RX_OFFLOAD, TX_OFFLOAD } from '../../../ethdev/constants.js';
import { FORWARD_CHECKSUM } from '../../../memory/layout-forward.js';
import type { Command, Words } from '../grammar.js';
import { attempt } from '../output.js';
import type { Session, TestPort } from '../session.js';
import { ValueError } from '../values.js';

/** Checksums of the csum mode, in the order in which testpmd shows them; those without bits are computed by nobody's device. */
const CHECKSUMS: Readonly<Record<string, { shown: string; name: string; bit: number; offload: number }>> = {
  ip: { shown: 'IP', name: 'IP', bit: FORWARD_CHECKSUM.IP, offload: TX_OFFLOAD.IPV4_CKSUM },
  udp: { shown: 'UDP', name: 'UDP', bit: FORWARD_CHECKSUM.UDP, offload: TX_OFFLOAD.UDP_CKSUM },
  tcp: { shown: 'TCP', name: 'TCP', bit: FORWARD_CHECKSUM.TCP, offload: TX_OFFLOAD.TCP_CKSUM },
  sctp: { shown: 'SCTP', name: 'SCTP', bit: 0, offload: 0 },
  'outer-ip': { shown: 'Outer-Ip', name: 'Outer IP', bit: 0, offload: 0 },
  'outer-udp': { shown: 'Outer-Udp', name: 'Outer UDP', bit: 0, offload: 0 },
};

const checksumText = ({ checksums }: TestPort): string =>
  [
    'Parse tunnel is off',
    ...Object.values(CHECKSUMS).map(
      ({ shown, bit }) => `${shown} checksum offload is ${(checksums & bit) !== 0 ? 'hw' : 'sw'}`,
    ),
  ].join('\n');

function setChecksum(session: Session, words: Words): void {
  const { out } = session;
  const test = session.find(words.number(2));
  if (!test || !session.stopped(test)) return;
  const { name, bit, offload } = CHECKSUMS[words.text(0)]!;
  if (words.text(1) === 'hw') {
    if (bit === 0 || (test.port.info().txOffloads & offload) === 0)
      out.complain(`${name} checksum offload is not supported by port ${test.port.id}`);
    else {
      test.checksums |= bit;
      test.txOffloads |= offload;
      test.stale = true;
    }
  } else {
    test.checksums &= ~bit;
    test.txOffloads &= ~offload;
    test.stale = true;
  }
  out.print(checksumText(test));
}

function showChecksum(session: Session, words: Words): void {
  const test = session.find(words.number(0));
  if (test && session.stopped(test)) session.out.print(checksumText(test));
}

const tsoText = ({ tsoSegment }: TestPort): string =>
  tsoSegment === 0
    ? 'TSO for non-tunneled packets is disabled'
    : `TSO segment size for non-tunneled packets is ${tsoSegment}`;

function tso(session: Session, id: number, segment: number | undefined): void {
  const { out } = session;
  const test = session.find(id);
  if (!test || (segment !== undefined && !session.stopped(test))) return;
  if ((test.port.info().txOffloads & TX_OFFLOAD.TCP_TSO) === 0) {
    out.complain(`Error: TSO is not supported by port ${id}`);
    return;
  }
  if (segment !== undefined) {
    if (segment > 0xffff) throw new ValueError(`tso: expected 0 to 65535 bytes, got ${segment}`);
    test.tsoSegment = segment;
    test.txOffloads = segment === 0 ? test.txOffloads & ~TX_OFFLOAD.TCP_TSO : test.txOffloads | TX_OFFLOAD.TCP_TSO;
    test.stale = true;
  }
  out.print(tsoText(test));
}

async function setMac(session: Session, words: Words): Promise<void> {
  const test = session.find(words.number(0));
  if (!test) return;
  const failure = await attempt(() => test.port.setMac(words.text(1)));
  if (failure) session.out.complain(`mac_addr_cmd error: (${failure.text})`);
}

/** A stopped port is configured anew with or without it. */
function setVlanOffload(session: Session, words: Words): void {
  const { out } = session;
  const test = session.find(words.number(2));
  if (!test) return;
  const name = words.text(0);
  const bit = name === 'strip' ? RX_OFFLOAD.VLAN_STRIP : RX_OFFLOAD.VLAN_FILTER;
  const on = words.on(1);
  const { port } = test;
  const call = `rx_vlan_${name}_set(port_pi=${port.id}, on=${on ? 1 : 0})`;
  if (on && (port.info().rxOffloads & bit) === 0) {
    out.complain(`${call} failed diag=-22`);
    return;
  }
  if (!session.stopped(test)) return;
  test.rxOffloads = on ? test.rxOffloads | bit : test.rxOffloads & ~bit;
  test.stale = true;
}

export const offloadCommands: readonly Command[] = [
  {
    ...{ pattern: `csum set ${Object.keys(CHECKSUMS).join('|')} hw|sw <port>`, section: 'config' },
    text: 'Who computes a checksum in csum mode.',
    run: setChecksum,
  },
  { ...{ pattern: 'csum show <port>', section: 'config', text: 'Who computes which checksum.' }, run: showChecksum },
  {
    ...{ pattern: 'csum mac-swap on|off <port>', section: 'config' },
    text: 'Whether csum mode puts its own Ethernet addresses into packets.',
    run: (session, words) => {
      const test = session.find(words.number(1));
      if (test) test.keepAddresses = !words.on(0);
    },
  },
  {
    ...{
      pattern: 'tso set <n> <port>',
      section: 'config',
      text: 'Payload of a segment that the device cuts; 0 = off.',
    },
    run: (session, words) => tso(session, words.number(1), words.number(0)),
  },
  {
    ...{ pattern: 'tso show <port>', section: 'config', text: 'Segmentation by the device.' },
    run: (session, words) => tso(session, words.number(0), undefined),
  },
  { ...{ pattern: 'mac_addr set <port> <mac>', section: 'config', text: 'Address of a port.' }, run: setMac },
  {
    ...{ pattern: 'vlan set strip|filter on|off <port>', section: 'config' },
    text: 'Take tags out of received packets, or let in only those of rx_vlan.',
    run: setVlanOffload,
  },
];
