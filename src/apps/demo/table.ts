// The demo's last words: tables that a person can read, at most 100 columns wide.
import type { DemoResult, NicRow } from './result.js';
import { byteText, countText, gigabitText, millisecondText } from './units.js';

export const WIDTH = 100;
const GAP = 2;

/** Aligned columns: the first to the left, the others to the right; `head` above a line. */
export function columns(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map((title, at) => Math.max(title.length, ...rows.map((row) => (row[at] ?? '').length)));
  const line = (cells: readonly string[]) =>
    widths
      .map((width, at) => (at === 0 ? (cells[at] ?? '').padEnd(width) : (cells[at] ?? '').padStart(width)))
      .join(' '.repeat(GAP))
      .trimEnd();
  const rule = '-'.repeat(widths.reduce((sum, width) => sum + width, GAP * (widths.length - 1)));
  return [line(head), rule, ...rows.map(line)];
}

type Cell = (nic: NicRow) => number | string;

const count = (nic: NicRow, side: 'guest' | 'host', ...names: string[]): number =>
  names.reduce((sum, name) => sum + (nic[side][name] ?? 0), 0);
const guest =
  (...names: string[]): Cell =>
  (nic) =>
    count(nic, 'guest', ...names);
const host =
  (...names: string[]): Cell =>
  (nic) =>
    count(nic, 'host', ...names);
const ratio = (over: number, under: number): string => (under > 0 ? (over / under).toFixed(2) : '-');
const mean = (sum: number, of: number): string => (of > 0 ? countText(Math.round(sum / of)) : '-');

/** Rows of the table of NICs, with a title above each group. Names are those of GUEST_QUEUE and HOST_CHANNEL. */
const NIC_ROWS: readonly (readonly [string, readonly (readonly [string, Cell])[]])[] = [
  [
    'throughput (Gbit/s)',
    [
      ['best out', (nic) => gigabitText(nic.bitsPerSecondOut)],
      ['best in', (nic) => gigabitText(nic.bitsPerSecondIn)],
    ],
  ],
  [
    'packets sent',
    [
      ['all', guest('txPackets')],
      ['copied into sections', guest('txCopied')],
      ['direct, by page ranges', guest('txDirect')],
      ['packets a message', (nic) => ratio(count(nic, 'guest', 'txPackets'), count(nic, 'guest', 'txMessages'))],
      ['bytes a packet', (nic) => mean(count(nic, 'guest', 'txBytes'), count(nic, 'guest', 'txPackets'))],
    ],
  ],
  [
    'packets received',
    [
      ['all', guest('rxPackets')],
      ['coalesced (RSC)', guest('rxCoalesced')],
      ['packets a message', (nic) => ratio(count(nic, 'guest', 'rxPackets'), count(nic, 'guest', 'rxMessages'))],
      ['bytes a packet', (nic) => mean(count(nic, 'guest', 'rxBytes'), count(nic, 'guest', 'rxPackets'))],
    ],
  ],
  [
    'offloaded to the host',
    [
      ['large sends (LSO)', guest('txLso')],
      ['checksums to fill in', guest('txChecksum')],
      ['checksums found good', guest('rxChecksumGood')],
      ['checksums by the driver', guest('txSoftwareChecksum')],
    ],
  ],
  [
    'rings and buffers',
    [
      ['guest found ring full', guest('ringFull')],
      ['host found ring full', host('ringFull')],
      ['no section was free', guest('txNoSection')],
      ['queue stopped', guest('txStops')],
      ['interrupts to the host', guest('signals')],
      ['interrupts to the guest', host('signals')],
    ],
  ],
];

function nicTable(result: DemoResult): string[] {
  const rows: string[][] = [];
  for (const [title, entries] of NIC_ROWS) {
    rows.push([title]);
    for (const [name, cell] of entries) {
      const cells = result.nics.map((nic) => cell(nic));
      rows.push([`  ${name}`, ...cells.map((value) => (typeof value === 'number' ? countText(value) : value))]);
    }
  }
  const errors = (nic: string) => result.errors.filter(({ where }) => where.startsWith(`${nic} `));
  const total = (nic: NicRow) => errors(nic.name).reduce((sum, error) => sum + error.count, 0);
  rows.push(['errors', ...result.nics.map((nic) => countText(total(nic)))]);
  return columns(['per NIC', ...result.nics.map((nic) => nic.name)], rows);
}

function tcpTable(result: DemoResult): string[] {
  const rows = result.tcp.map((row) => [
    `${row.from} > ${row.to}`,
    `IPv${row.family}`,
    byteText(row.bytesReceived),
    row.seconds.toFixed(2),
    gigabitText(row.bitsPerSecond),
    row.intact ? `equal ${row.hashSent.slice(0, 8)}` : 'DIFFERENT',
  ]);
  return columns(['TCP', '', 'bytes', 'seconds', 'Gbit/s', 'SHA-256 of both ends'], rows);
}

function udpTable(result: DemoResult): string[] {
  const rows = result.udp.map((row) => [
    `${row.from} > ${row.to}`,
    `IPv${row.family}`,
    countText(row.datagramsSent),
    byteText(row.bytesSent),
    `${Math.min(...row.sizes)}-${Math.max(...row.sizes)} B`,
    ...[row.lost, row.wrong, row.reordered, row.duplicates].map(countText),
  ]);
  return columns(['UDP', '', 'datagrams', 'bytes', 'sizes', 'lost', 'wrong', 'reordered', 'twice'], rows);
}

/** Round trips of the smallest packets; the other sizes only when something is missing. */
function pingTable(result: DemoResult): string[] {
  const usual = result.pings.filter((row, i, all) => {
    const first = all.findIndex((other) => sameWay(other, row));
    return first === i || row.received !== row.sent;
  });
  const rows = usual.map((row) => {
    const all = result.pings.filter((other) => sameWay(other, row));
    return [
      `${row.from} > ${row.to}`,
      `IPv${row.family}`,
      `${all.reduce((sum, other) => sum + other.received, 0)}/${all.reduce((sum, other) => sum + other.sent, 0)}`,
      `${Math.max(...all.map((other) => other.payloadBytes))} B`,
      ...[row.minMs, row.avgMs, row.maxMs].map(millisecondText),
    ];
  });
  const head = ['round trips', '', 'answered', 'up to', 'min ms', 'avg ms', 'max ms'];
  return columns(head, rows);
}

const sameWay = (a: DemoResult['pings'][number], b: DemoResult['pings'][number]): boolean =>
  a.from === b.from && a.to === b.to && a.family === b.family;

function replayTable(result: DemoResult): string[] {
  const rows = result.replay.map((row) => [
    `${row.from} > ${row.to}`,
    ...[row.framesSent, row.framesReceived, row.framesWrong].map(countText),
    byteText(row.bytes),
    row.seconds.toFixed(2),
    gigabitText(row.bitsPerSecond),
  ]);
  return columns(['replay', 'sent', 'received', 'wrong', 'bytes', 'seconds', 'Gbit/s'], rows);
}

function headline(result: DemoResult): string[] {
  const nic = result.nics[0];
  const versions = nic ? `, NVSP ${nic.nvspVersion.replace('V', '')}, NDIS ${nic.ndisVersion}` : '';
  const lines = [
    `${result.nics.length} NICs and an uplink on one switch, profile ${result.profile}, MTU ${result.mtu}${versions}`,
  ];
  if (nic) lines.push(...wrap(`offloads: ${nic.offloads.join(' ') || 'none'}`));
  lines.push(...result.notes.flatMap((note) => wrap(`note: ${note}`)));
  return lines;
}

/** Breaks at spaces so that lines fit; what follows is indented. */
export function wrap(text: string, width = WIDTH): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = `  ${word}`;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  lines.push(line);
  return lines;
}

/** All tables, and the verdict as the last line. */
export function renderTables(result: DemoResult): string {
  const blocks = [headline(result)];
  if (result.pings.length > 0) blocks.push(pingTable(result));
  if (result.tcp.length > 0) blocks.push(tcpTable(result));
  if (result.udp.length > 0) blocks.push(udpTable(result));
  if (result.replay.length > 0) blocks.push(replayTable(result));
  blocks.push(nicTable(result));
  const faults = [
    ...result.errors.map(({ where, counter, count: times }) => `error: ${where}: ${counter} ${times}`),
    ...result.problems.flatMap((problem) => wrap(`problem: ${problem}`)),
  ];
  if (faults.length > 0) blocks.push(faults);
  blocks.push([result.verdict]);
  return `${blocks.map((lines) => lines.join('\n')).join('\n\n')}\n`;
}
