// port start|stop|close|reset and port config.
import { RX_OFFLOAD, TX_OFFLOAD } from '../../../ethdev/constants.js';
import type { Command, Words } from '../grammar.js';
import { attempt } from '../output.js';
import { closePorts, resetPorts, startPorts, stopPorts } from '../ports.js';
import { parseEntries, parseKey, RSS_WORDS } from '../rss.js';
import { FRAME_OVERHEAD, type Session } from '../session.js';
import { BURST_MAX, ValueError } from '../values.js';

async function lifecycle(session: Session, words: Words): Promise<void> {
  const which = words.which(1);
  const verb = words.text(0);
  if (verb === 'start') await startPorts(session, which);
  else if (verb === 'stop') await stopPorts(session, which);
  else if (verb === 'close') await closePorts(session, which);
  else await resetPorts(session, which);
}

/** All ports are configured anew when they start. */
function makeStale(session: Session): void {
  for (const test of session.open) test.stale = true;
}

const QUEUES = {
  rxq: { field: 'rxQueues', limit: 'maxRxQueues', what: 'max_rx_queues' },
  txq: { field: 'txQueues', limit: 'maxTxQueues', what: 'max_tx_queues' },
} as const;
const DESCRIPTORS = {
  rxd: { field: 'rxDescriptors', limits: 'rxDescriptors' },
  txd: { field: 'txDescriptors', limits: 'txDescriptors' },
} as const;

function configQueues(session: Session, words: Words): void {
  const { out } = session;
  if (!session.allStopped()) return;
  const name = words.text(0) as keyof typeof QUEUES;
  const { field, limit, what } = QUEUES[name];
  const count = words.number(1);
  for (const { port } of session.open) {
    const max = port.info()[limit];
    if (count <= max) continue;
    out.complain(`Fail: input ${name} (${count}) can't be greater than ${what} (${max}) of port ${port.id}`);
    return;
  }
  const other = field === 'rxQueues' ? session.txQueues : session.rxQueues;
  if (count + other === 0) {
    out.complain('Warning: Either rx or tx queues should be non zero');
    return;
  }
  session[field] = count;
  makeStale(session);
}

function configDescriptors(session: Session, words: Words): void {
  const { out } = session;
  if (!session.allStopped()) return;
  const name = words.text(0) as keyof typeof DESCRIPTORS;
  const { field, limits } = DESCRIPTORS[name];
  const count = words.number(1);
  if (count <= 0) throw new ValueError(`${name} ${count} invalid - must be > 0`);
  for (const { port } of session.open) {
    const { min, max } = port.info()[limits];
    if (count >= min && count <= max) continue;
    out.complain(`Fail: input ${name} (${count}) can't be outside ${min} to ${max}, the limits of port ${port.id}`);
    return;
  }
  session[field] = count;
  makeStale(session);
}

async function configMtu(session: Session, words: Words): Promise<void> {
  const test = session.find(words.number(0));
  if (!test) return;
  const failure = await attempt(() => test.port.setMtu(words.number(1)));
  if (failure) session.out.complain(`${failure.message}\nSet MTU failed. diag=-${failure.number}`);
  else session.mtu = undefined;
}

async function configMaxLength(session: Session, words: Words): Promise<void> {
  const { out } = session;
  if (!session.allStopped()) return;
  const bytes = words.number(0);
  if (bytes < 64) {
    out.complain('max-pkt-len can not be less than 64');
    return;
  }
  const mtu = bytes - FRAME_OVERHEAD;
  for (const { port } of session.open) {
    const failure = await attempt(() => port.setMtu(mtu));
    if (failure) out.complain(`${failure.message}\nFailed to set MTU to ${mtu} for port ${port.id}`);
  }
}

function configBurst(session: Session, words: Words): void {
  if (!session.allStopped()) return;
  const count = words.number(0);
  if (count < 1 || count > BURST_MAX) throw new ValueError(`burst must be >= 1 && <= ${BURST_MAX}`);
  session.burst = count;
  session.forwarder.tell('burst', count);
}

const hex = (value: number): string => `0x${value.toString(16)}`;

async function configRss(session: Session, words: Words): Promise<void> {
  const { out } = session;
  const requested = RSS_WORDS[words.text(0)];
  if (requested === undefined) throw new ValueError('Unknown parameter');
  let done = true;
  for (const { port } of session.open) {
    const types = requested & port.info().rssTypes;
    if (types !== requested) {
      const how = `requested:${hex(requested)} configured:${hex(types)}`;
      out.print(`Port ${port.id} modified RSS hash function based on hardware support,${how}`);
    }
    const failure = await attempt(() => port.setRss({ types }));
    if (!failure) continue;
    done = false;
    const what = `Configuration of RSS hash at ethernet port ${port.id} failed with error (${failure.number})`;
    out.complain(`${what}: ${failure.text}.`);
  }
  session.rssTypes = requested;
  if (done) out.print(`rss_hf ${requested === 0 ? '0' : hex(requested)}`);
}

async function configTable(session: Session, words: Words): Promise<void> {
  const { out } = session;
  const test = session.find(words.number(0));
  if (!test) return;
  const { rssTableEntries } = test.port.info();
  if (rssTableEntries === 0) {
    out.complain('Redirection table size is 0 which is invalid for RSS');
    return;
  }
  out.print(`The reta size of port ${test.port.id} is ${rssTableEntries}`);
  const entries = parseEntries(words.text(1), rssTableEntries);
  const failure = await attempt(() => {
    const table = [...test.port.rss().table];
    for (const [entry, queue] of entries) table[entry] = queue;
    return test.port.setRss({ table });
  });
  if (failure) out.complain(`Bad redirection table parameter, return code = -${failure.number}`);
}

async function configKey(session: Session, words: Words): Promise<void> {
  const { out } = session;
  const test = session.find(words.number(0));
  if (!test) return;
  const { rssKeyBytes } = test.port.info();
  if (rssKeyBytes === 0) {
    out.complain('dev_info did not provide a valid hash key size');
    return;
  }
  const key = parseKey(words.text(2), rssKeyBytes);
  const failure = await attempt(() => test.port.setRss({ key }));
  if (failure?.number === 95) out.complain('operation not supported by device');
  else if (failure) out.complain(`${failure.message}\noperation failed - diag=-${failure.number}`);
}

function configOffload(session: Session, words: Words): void {
  const { out } = session;
  const test = session.find(words.number(0));
  if (!test) return;
  const rx = words.text(1) === 'rx_offload';
  const name = words.text(2);
  const bit = Object.entries(rx ? RX_OFFLOAD : TX_OFFLOAD).find(([key]) => key.toLowerCase() === name)?.[1];
  if (bit === undefined) throw new ValueError('Bad arguments');
  if (test.port.state === 'started') {
    out.complain(`Error: Can't config offload when Port ${test.port.id} is not stopped`);
    return;
  }
  const field = rx ? 'rxOffloads' : 'txOffloads';
  test[field] = words.on(3) ? test[field] | bit : test[field] & ~bit;
  test.stale = true;
}

export const portCommands: readonly Command[] = [
  {
    ...{ pattern: 'port start|stop|close|reset <port|all>', section: 'ports' },
    text: 'Let packets flow, end that, give the device back, or undo its configuration.',
    run: lifecycle,
  },
  { ...{ pattern: 'port config all rxq|txq <n>', section: 'ports', text: 'Queues of every port.' }, run: configQueues },
  {
    ...{ pattern: 'port config all rxd|txd <n>', section: 'ports', text: 'Descriptors of every queue.' },
    run: configDescriptors,
  },
  {
    ...{ pattern: 'port config mtu <port> <bytes>', section: 'ports', text: 'MTU of a stopped port.' },
    run: configMtu,
  },
  {
    ...{ pattern: 'port config all max-pkt-len <bytes>', section: 'ports', text: 'Longest frame, FCS included.' },
    run: configMaxLength,
  },
  { ...{ pattern: 'port config all burst <n>', section: 'ports', text: 'Packets a burst.' }, run: configBurst },
  {
    ...{
      pattern: 'port config all rss <types>',
      section: 'ports',
      text: `What is hashed: ${Object.keys(RSS_WORDS).join(', ')}.`,
    },
    run: configRss,
  },
  {
    ...{ pattern: 'port config <port> rss reta <(entry,queue),...>', section: 'ports' },
    text: 'Entries of the redirection table.',
    run: configTable,
  },
  {
    ...{ pattern: 'port config <port> rss-hash-key <type> <key>', section: 'ports', text: 'The key, in hexadecimal.' },
    run: configKey,
  },
  {
    ...{ pattern: 'port config <port> rx_offload|tx_offload <name> on|off', section: 'ports' },
    text: 'What the device does for packets; the port is stopped.',
    run: configOffload,
  },
];
