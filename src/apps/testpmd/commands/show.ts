// show and clear.
import { PortError } from '../../../ethdev/errors.js';
import type { DescriptorStatus } from '../../../ethdev/types.js';
import { coresText, planText, rxTxText, segmentsText } from '../config-text.js';
import type { Command, Words } from '../grammar.js';
import { attempt } from '../output.js';
import {
  capabilitiesText,
  configurationText,
  deviceText,
  portInfoText,
  rxQueueText,
  summaryText,
  txQueueText,
} from '../port-text.js';
import { chosenEntries, keyText, rssTypeLines } from '../rss.js';
import type { Session, TestPort } from '../session.js';
import { portStats, portXstats } from '../stats.js';
import { ValueError } from '../values.js';

/** Each port that a command means, as text. */
const each = (text: (session: Session, test: TestPort) => string) => (session: Session, words: Words) => {
  for (const test of session.selectToShow(words.which(0))) session.out.print(text(session, test));
};

/** The table's entries that masks choose. */
function showTable(session: Session, words: Words): void {
  const { out } = session;
  const test = session.find(words.number(0));
  if (!test) return;
  const size = words.number(1);
  const { rssTableEntries } = test.port.info();
  if (size < 1 || size > rssTableEntries) {
    out.complain(`Invalid redirection table size: ${size} (1-${rssTableEntries})`);
    return;
  }
  const chosen = chosenEntries(words.text(2), size);
  if (size !== rssTableEntries) {
    out.complain('Failed to get RSS RETA info, return code = -22');
    return;
  }
  const { table } = test.port.rss();
  const lines = chosen.map((entry) => `RSS RETA configuration: hash index=${entry}, queue=${table[entry]}`);
  if (lines.length > 0) out.print(lines.join('\n'));
}

function showHash(session: Session, id: number, withKey: boolean): void {
  const { out } = session;
  const test = session.find(id);
  if (!test) return;
  if (test.port.info().rssKeyBytes === 0) {
    out.complain('dev_info did not provide a valid hash key size');
    return;
  }
  const { types, key } = test.port.rss();
  if (types === 0) {
    out.print('RSS disabled');
    return;
  }
  out.print(['RSS functions:', ...rssTypeLines(types)].join('\n'));
  if (withKey) out.print(`RSS key:\n${keyText(key)}`);
}

async function showQueue(session: Session, words: Words): Promise<void> {
  const rx = words.text(0) === 'rxq';
  const [id, queue] = [words.number(1), words.number(2)];
  const test = session.open.find(({ port }) => port.id === id);
  const what = `Failed to retrieve information for port: ${id}, ${rx ? 'RX' : 'TX'} queue: ${queue}`;
  if (!test) {
    session.out.complain(`${what}\nerror desc: No such device(-19)`);
    return;
  }
  const text = rx ? rxQueueText : txQueueText;
  const failure = await attempt(() => session.out.print(text(test, queue)));
  if (failure) session.out.complain(`${what}\nerror desc: ${failure.text}(-${failure.number})`);
}

async function showDescriptor(session: Session, words: Words): Promise<void> {
  const test = session.find(words.number(0));
  if (!test) return;
  const [queue, descriptor] = [words.number(2), words.number(3)];
  const { port } = test;
  let status: DescriptorStatus | undefined;
  const failure = await attempt(() => {
    status =
      words.text(1) === 'rxq' ? port.rxDescriptorStatus(queue, descriptor) : port.txDescriptorStatus(queue, descriptor);
  });
  if (failure) session.out.complain(`Invalid input: queue id = ${queue}, desc id = ${descriptor}`);
  else session.out.print(`Desc status = ${status}`);
}

async function showUsed(session: Session, words: Words): Promise<void> {
  const test = session.find(words.number(0));
  if (!test) return;
  const rx = words.text(1) === 'rxq';
  const queue = words.number(2);
  const failure = await attempt(() => {
    if (!rx) throw new PortError('ENOTSUP', `tx queue ${queue}`, 'transmit queues do not tell');
    session.out.print(`RxQ ${queue} used desc count = ${test.port.rxQueueCount(queue)}`);
  });
  if (failure)
    session.out.complain(`${rx ? 'Rx' : 'Tx'} queue count get failed rc=-${failure.number} queue_id=${queue}`);
}

function showOffloads(session: Session, words: Words): void {
  const test = session.find(words.number(0));
  if (!test) return;
  const direction = words.text(1) === 'rx_offload' ? 'rx' : 'tx';
  const what = words.text(2);
  session.out.print(
    what === 'capabilities' ? capabilitiesText(test, direction) : configurationText(session, test, direction),
  );
}

function showDevice(session: Session, words: Words): void {
  const name = words.text(0);
  const found = session.open.filter(({ port }) => name === 'all' || port.device === name);
  if (found.length === 0) throw new ValueError(`cannot parse identifier`);
  for (const test of found) session.out.print(deviceText(session, test));
}

function showConfig(session: Session, words: Words): void {
  const { out } = session;
  const what = words.text(0);
  if (what === 'fwd') out.print(planText(session, session.plan()));
  else if (what === 'rxtx') out.print(rxTxText(session));
  else if (what === 'cores') out.print(coresText(session));
  else out.print(segmentsText(session));
}

function clearPort(session: Session, words: Words): void {
  const stats = words.text(0) === 'stats';
  for (const test of session.selectToShow(words.which(1))) {
    test.port.resetStats();
    test.shown = undefined;
    if (stats) session.out.print(`\n  NIC statistics for port ${test.port.id} cleared`);
  }
}

export const showCommands: readonly Command[] = [
  {
    ...{ pattern: 'show port info <port|all>', section: 'display', text: 'What a port is and can.' },
    run: each(portInfoText),
  },
  {
    ...{ pattern: 'show port stats <port|all>', section: 'display', text: 'Packets and bytes, and how many a second.' },
    run: each((session, test) => portStats(session, test, performance.now())),
  },
  {
    ...{ pattern: 'show port xstats <port|all>', section: 'display', text: 'Every counter of a port.' },
    run: each((_, test) => portXstats(test)),
  },
  {
    ...{ pattern: 'show port summary <port|all>', section: 'display', text: 'Ports, a line each.' },
    run: (session, words) => {
      const ports = session.selectToShow(words.which(0));
      if (ports.length > 0) session.out.print(summaryText(session, ports));
    },
  },
  {
    ...{ pattern: 'show port <port> rss reta <n> <masks>', section: 'display' },
    text: 'Entries of the redirection table, as in "128 (0xff,0x0)".',
    run: showTable,
  },
  {
    ...{ pattern: 'show port <port> rss-hash', section: 'display', text: 'What is hashed.' },
    run: (session, words) => showHash(session, words.number(0), false),
  },
  {
    ...{ pattern: 'show port <port> rss-hash key', section: 'display', text: 'What is hashed, and by which key.' },
    run: (session, words) => showHash(session, words.number(0), true),
  },
  {
    ...{ pattern: 'show rxq|txq info <port> <queue>', section: 'display', text: 'How a queue is set up.' },
    run: showQueue,
  },
  {
    ...{ pattern: 'show port <port> rxq|txq <queue> desc <desc> status', section: 'display' },
    text: 'Whether a descriptor waits, is done, or is free.',
    run: showDescriptor,
  },
  {
    ...{ pattern: 'show port <port> rxq|txq <queue> desc used count', section: 'display', text: 'Packets that wait.' },
    run: showUsed,
  },
  {
    ...{ pattern: 'show port <port> rx_offload|tx_offload capabilities|configuration', section: 'display' },
    text: 'What the device could do for packets, or does.',
    run: showOffloads,
  },
  { ...{ pattern: 'show device info <name>', section: 'display', text: 'A device by name, or all.' }, run: showDevice },
  {
    ...{ pattern: 'show config fwd|rxtx|cores|txpkts', section: 'display', text: 'The current configuration.' },
    run: showConfig,
  },
  {
    ...{ pattern: 'show fwd stats all', section: 'display', text: 'What was forwarded, by stream and port.' },
    run: ({ out, forwarder }) => out.print(forwarder.text()),
  },
  {
    ...{ pattern: 'clear fwd stats all', section: 'display', text: 'Count forwarded packets from 0.' },
    run: ({ forwarder }) => forwarder.clear(),
  },
  {
    ...{ pattern: 'clear port stats|xstats <port|all>', section: 'display', text: 'Count from 0.' },
    run: clearPort,
  },
];
