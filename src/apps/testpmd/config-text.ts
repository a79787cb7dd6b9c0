// "show config": who forwards what, and how queues are set up.
import type { Port } from '../../ethdev/port.js';
import { portConfig } from './ports.js';
import type { Session, TestPort } from './session.js';
import type { Plan } from './streams.js';

const withRetry = ({ retry }: Session): string => (retry ? ' with retry' : '');

/** "show config fwd", and the first lines of "start". */
export function planText(session: Session, plan: Plan): string {
  const { mode, ports, shares, streams } = plan;
  const what = `${mode} packet forwarding${withRetry(session)}`;
  const counts = `ports=${ports.length} - cores=${shares.length} - streams=${streams.length}`;
  const lines = [`${what} - ${counts} - NUMA support enabled, MP allocation mode: native`];
  if (session.retry)
    lines.push(`TX retry num: ${session.retries}, delay between TX retries: ${session.retryDelayUs}us`);
  for (const { core, streams: own } of shares) {
    lines.push(`Logical Core ${core} (socket 0) forwards packets on ${own.length} streams:`);
    for (const { rxPort, rxQueue, txPort, txQueue } of own) {
      const to = `TX P=${txPort}/Q=${txQueue} (socket 0) peer=${session.peerText(txPort)}`;
      lines.push(`  RX P=${rxPort}/Q=${rxQueue} (socket 0) -> ${to}`);
    }
  }
  return `${lines.join('\n')}\n`;
}

const hex = (value: number): string => `0x${(value >>> 0).toString(16)}`;

/** The first queue's, as testpmd has it; 0 descriptors while queues are not set up. */
function queueLines(session: Session, test: TestPort): string[] {
  const { port } = test;
  const { rxOffloads = 0, txOffloads = 0 } = portConfig(session, test);
  const rx = descriptors(() => port.rxQueueInfo(0));
  const tx = descriptors(() => port.txQueueInfo(0));
  return [
    `    Rx offloads=${hex(rxOffloads)} Tx offloads=${hex(txOffloads)}`,
    '    RX queue: 0',
    `      RX desc=${rx} - RX free threshold=0`,
    '      RX threshold registers: pthresh=0 hthresh=0  wthresh=0',
    `      RX Offloads=${hex(rxOffloads)}`,
    '    TX queue: 0',
    `      TX desc=${tx} - TX free threshold=0`,
    '      TX threshold registers: pthresh=0 hthresh=0  wthresh=0',
    `      TX offloads=${hex(txOffloads)} - TX RS bit threshold=0`,
  ];
}

function descriptors(info: () => ReturnType<Port['rxQueueInfo']>): number {
  try {
    return info().descriptors;
  } catch {
    return 0;
  }
}

/** "show config rxtx". */
export function rxTxText(session: Session): string {
  const { mode, burst, segments, rxQueues, txQueues, coreCount, portCount } = session;
  const lines: string[] = [];
  if (mode === 'flowgen')
    for (const id of session.plan().ports) lines.push(`  number of flows for port ${id}: ${session.options.flows}`);
  lines.push(`  ${mode} packet forwarding${withRetry(session)} packets/burst=${burst}`);
  if (mode === 'txonly' || mode === 'flowgen') {
    const length = segments.reduce((sum, bytes) => sum + bytes, 0);
    lines.push(`  packet len=${length} - nb packet segments=${segments.length}`);
  }
  lines.push(`  nb forwarding cores=${coreCount} - nb forwarding ports=${portCount}`);
  for (const test of session.open) {
    lines.push(`  port ${test.port.id}: RX queue number: ${rxQueues} Tx queue number: ${txQueues}`);
    lines.push(...queueLines(session, test));
  }
  return lines.join('\n');
}

/** "show config cores". */
export const coresText = ({ cores, coreCount }: Session): string =>
  `List of forwarding lcores:${cores
    .slice(0, coreCount)
    .map((core) => ` ${String(core).padStart(2)}`)
    .join('')}`;

/** "show config txpkts". */
export const segmentsText = ({ segments }: Session): string =>
  `Number of segments: ${segments.length}\nSegment sizes: ${segments.join(',')}\nSplit packet: off`;
