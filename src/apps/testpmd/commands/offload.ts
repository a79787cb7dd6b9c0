// csum, tso, mac_addr, vlan.
import { RX_OFFLOAD, TX_OFFLOAD } from '../../../ethdev/constants.js';
import { FORWARD_CHECKSUM } from '../../../memory/layout-forward.js';
import type { Command, Words } from '../grammar.js';
import { attempt } from '../output.js';
import type { Session, TestPort } from '../session.js';
import { upperMac, ValueError, wholeNumber } from '../values.js';

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

async function changeMacs(session: Session, words: Words): Promise<void> {
  const test = session.find(words.number(1));
  if (!test) return;
  const mac = words.text(2);
  const failure = await attempt(() => (words.text(0) === 'add' ? test.port.addMac(mac) : test.port.removeMac(mac)));
  if (failure) session.out.complain(`mac_addr_cmd error: (${failure.text})`);
}

function showMacs(session: Session, words: Words): void {
  const test = session.find(words.number(0));
  if (!test) return;
  const macs = [test.port.mac, ...test.port.macs];
  session.out.print(
    [`Number of MAC address added: ${macs.length}`, ...macs.map((mac) => `  ${upperMac(mac)}`)].join('\n'),
  );
}

/** VLAN ids that a port lets in, one or all. */
async function changeVlans(session: Session, words: Words): Promise<void> {
  const { out } = session;
  const test = session.find(words.number(2));
  if (!test) return;
  const { port } = test;
  const on = words.text(0) === 'add';
  const id = words.text(1) === 'all' ? undefined : wholeNumber(words.text(1));
  if (words.text(1) !== 'all' && (id === undefined || id >= VLANS)) {
    out.complain(`Invalid vlan_id ${words.text(1)} (must be < ${VLANS})`);
    return;
  }
  if (((port.config?.rxOffloads ?? 0) & RX_OFFLOAD.VLAN_FILTER) === 0) {
    const call = `rte_eth_dev_vlan_filter(port_pi=${port.id}, vlan_id=${id ?? 0}, on=${on ? 1 : 0})`;
    out.complain(`Port ${port.id}: VLAN-filtering disabled\n${call} failed diag=-38`);
    return;
  }
  const ids = id === undefined ? Array.from({ length: VLANS }, (_, each) => each) : [id];
  for (const each of ids) {
    const failure = await attempt(() => port.vlanFilter(each, on));
    if (!failure) continue;
    const call = `rte_eth_dev_vlan_filter(port_pi=${port.id}, vlan_id=${each}, on=${on ? 1 : 0})`;
    out.complain(`${call} failed diag=-${failure.number}`);
    return;
  }
}

/** VLAN ids that there are. */
const VLANS = 4096;

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
    ...{ pattern: 'mac_addr add|remove <port> <mac>', section: 'config', text: 'Further addresses to receive for.' },
    run: changeMacs,
  },
  { ...{ pattern: 'show port <port> macs', section: 'display', text: 'Addresses of a port.' }, run: showMacs },
  {
    ...{ pattern: 'rx_vlan add|rm <vlan|all> <port>', section: 'config', text: 'VLANs that a filtering port lets in.' },
    run: changeVlans,
  },
  {
    ...{ pattern: 'vlan set strip|filter on|off <port>', section: 'config' },
    text: 'Take tags out of received packets, or let in only those of rx_vlan.',
    run: setVlanOffload,
  },
];
