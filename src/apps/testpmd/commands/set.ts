// set: forwarding, cores, ports, filters.
import type { Command, Words } from '../grammar.js';
import { isMode } from '../modes.js';
import { attempt } from '../output.js';
import type { Session, TestPort } from '../session.js';
import { BURST_MAX, bitsOf, parseList, parseMacValue, parseMask, parseSegments, ValueError } from '../values.js';

/** Forwarding is stopped; otherwise says so. */
export function idle(session: Session): boolean {
  if (!session.forwarder.running) return true;
  session.out.complain('Please stop forwarding first');
  return false;
}

function setMode(session: Session, words: Words, retry: boolean): void {
  const name = words.text(0);
  if (!isMode(name)) throw new ValueError('Bad arguments');
  session.mode = name;
  session.retry = retry;
  session.out.print(`Set ${name} packet forwarding mode${retry ? ' with retry' : ''}`);
}

function setVerbose(session: Session, words: Words): void {
  const level = words.number(0);
  session.out.print(`Change verbose level from ${session.verbose} to ${level}`);
  session.verbose = level;
  session.forwarder.tell('verbose', level);
}

function setBurst(session: Session, words: Words): void {
  const { out } = session;
  const count = words.number(0);
  if (count > BURST_MAX) {
    out.complain(`nb pkt per burst: ${count} > ${BURST_MAX} (maximum packet per burst)  ignored`);
    return;
  }
  if (count === 0) throw new ValueError(`burst must be >= 1 && <= ${BURST_MAX}`);
  session.burst = count;
  session.forwarder.tell('burst', count);
  out.print(`Number of packets per burst set to ${count}`);
}

function setCores(session: Session, cores: readonly number[]): void {
  const { out, workers, eal } = session;
  if (!idle(session)) return;
  for (const core of cores) {
    if (core === eal.options.cpus[0]) {
      const why = 'which is the main lcore and reserved for command line parsing only';
      out.complain(`lcore ${core} cannot be masked on for running packet forwarding, ${why}`);
      return;
    }
    if (!workers.includes(core)) {
      out.complain(`lcore ${core} not enabled`);
      return;
    }
  }
  const before = session.coreCount;
  session.cores = cores;
  session.coreCount = cores.length;
  if (before > cores.length)
    out.print(`previous number of forwarding cores ${before} - changed to number of configured cores ${cores.length}`);
  else if (before !== cores.length) out.print(`Number of forwarding cores set to ${cores.length}`);
}

function setPorts(session: Session, ports: readonly number[]): void {
  const { out } = session;
  if (!idle(session)) return;
  if (ports.some((id) => session.find(id) === undefined)) return;
  const before = session.portCount;
  session.forwardPorts = ports;
  session.portCount = ports.length;
  if (before > ports.length)
    out.print(`previous number of forwarding ports ${before} - changed to number of configured ports ${ports.length}`);
  else if (before !== ports.length) out.print(`Number of forwarding ports set to ${ports.length}`);
}

function setCoreCount(session: Session, words: Words): void {
  const { out, cores } = session;
  if (!idle(session)) return;
  const count = words.number(0);
  if (count > cores.length)
    out.complain(`nb fwd cores ${count} > ${cores.length} (max. number of configured lcores) - ignored`);
  else if (count === 0) throw new ValueError('nb fwd cores: expected at least 1');
  else {
    session.coreCount = count;
    out.print(`Number of forwarding cores set to ${count}`);
  }
}

function setPortCount(session: Session, words: Words): void {
  const { out, forwardPorts } = session;
  if (!idle(session)) return;
  const count = words.number(0);
  if (count > forwardPorts.length)
    out.complain(`nb fwd ports ${count} > ${forwardPorts.length} (number of configured ports) - ignored`);
  else if (count === 0) throw new ValueError('nb fwd ports: expected at least 1');
  else {
    session.portCount = count;
    out.print(`Number of forwarding ports set to ${count}`);
  }
}

/** testpmd's words for what did not work. */
const FILTERS = {
  promisc: { words: 'promiscuous', set: ({ port }: TestPort, on: boolean) => port.setPromiscuous(on) },
  allmulti: { words: 'all-multicast', set: ({ port }: TestPort, on: boolean) => port.setAllMulticast(on) },
} as const;

async function setFilter(session: Session, words: Words): Promise<void> {
  const { words: name, set } = FILTERS[words.text(0) as keyof typeof FILTERS];
  const on = words.on(2);
  for (const test of session.select(words.which(1))) {
    const failure = await attempt(() => set(test, on));
    if (!failure) continue;
    const what = `Error during ${on ? 'enabling' : 'disabling'} ${name} mode for port ${test.port.id}`;
    session.out.complain(`${what}: ${failure.text}`);
  }
}

async function setLink(session: Session, words: Words): Promise<void> {
  const up = words.text(0) === 'link-up';
  const test = session.find(words.number(1));
  const failure = test ? await attempt(() => test.port.setLink(up)) : { text: '' };
  if (failure) session.out.complain(`\nSet link ${up ? 'up' : 'down'} fail.`);
}

function setPeer(session: Session, words: Words): void {
  const id = words.number(0);
  if (!session.open.some(({ port }) => port.id === id)) {
    session.out.complain(`Error: Invalid port number ${id}`);
    return;
  }
  try {
    session.peers.set(id, parseMacValue(words.text(1)));
  } catch {
    session.out.complain(`Error: Invalid ethernet address: ${words.text(1)}`);
  }
}

function setRetry(session: Session, words: Words): void {
  session.retryDelayUs = words.number(0);
  session.retries = words.number(1);
}

function setDefault(session: Session): void {
  if (!idle(session)) return;
  session.out.print('Reset to default forwarding configuration...');
  session.cores = session.workers;
  session.forwardPorts = session.open.map(({ port }) => port.id);
  session.portCount = session.forwardPorts.length;
  session.coreCount = Math.min(1, session.cores.length);
}

export const setCommands: readonly Command[] = [
  {
    ...{ pattern: 'set fwd <mode>', section: 'config', text: 'Forwarding mode.' },
    run: (session, words) => setMode(session, words, false),
  },
  {
    ...{ pattern: 'set fwd <mode> retry', section: 'config' },
    text: 'Forwarding mode that tries again what a transmit queue has no room for.',
    run: (session, words) => setMode(session, words, true),
  },
  {
    ...{ pattern: 'set verbose <level>', section: 'config' },
    text: 'Print packets: 1 received, 2 sent, 3 both.',
    run: setVerbose,
  },
  { ...{ pattern: 'set burst <n>', section: 'config', text: 'Packets a burst.' }, run: setBurst },
  {
    ...{ pattern: 'set burst tx delay <us> retry <n>', section: 'config' },
    text: 'How long to wait, and how often, with "retry".',
    run: setRetry,
  },
  {
    ...{ pattern: 'set txpkts <bytes,...>', section: 'config', text: 'Lengths of the segments of made packets.' },
    run: (session, words) => {
      session.segments = parseSegments(words.text(0));
    },
  },
  { ...{ pattern: 'set nbcore <n>', section: 'config', text: 'Threads that forward.' }, run: setCoreCount },
  { ...{ pattern: 'set nbport <n>', section: 'config', text: 'Ports that forward.' }, run: setPortCount },
  {
    ...{ pattern: 'set corelist <list>', section: 'config', text: 'CPUs that forward, as 1,2.' },
    run: (session, words) => setCores(session, parseList(words.text(0), 1023)),
  },
  {
    ...{ pattern: 'set coremask <mask>', section: 'config', text: 'The same as a hexadecimal mask.' },
    run: (session, words) => setCores(session, bitsOf(parseMask(words.text(0), 256))),
  },
  {
    ...{ pattern: 'set portlist <list>', section: 'config', text: 'Ports that forward, as 0,1.' },
    run: (session, words) => setPorts(session, parseList(words.text(0), 1023)),
  },
  {
    ...{ pattern: 'set portmask <mask>', section: 'config', text: 'The same as a hexadecimal mask.' },
    run: (session, words) => setPorts(session, bitsOf(parseMask(words.text(0), 256))),
  },
  {
    ...{ pattern: 'set promisc|allmulti <port|all> on|off', section: 'config', text: 'Receive filter.' },
    run: setFilter,
  },
  { ...{ pattern: 'set eth-peer <port> <mac>', section: 'config', text: 'Whom a port sends to.' }, run: setPeer },
  { ...{ pattern: 'set link-up|link-down port <port>', section: 'config', text: 'Link of a port.' }, run: setLink },
  {
    ...{ pattern: 'set link_check on|off', section: 'config', text: 'Look at links when ports start and stop.' },
    run: (session, words) => {
      session.linkCheck = words.on(0);
    },
  },
  {
    ...{ pattern: 'set flush_rx on|off', section: 'config', text: 'Drop what waits in rx queues before forwarding.' },
    run: (session, words) => {
      session.flushRx = words.on(0);
    },
  },
  { ...{ pattern: 'set default', section: 'config', text: 'All cores and ports, as at first.' }, run: setDefault },
];
