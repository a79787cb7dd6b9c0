// One line per finished phase.
import type { JobResults } from './jobs.js';
import type { ReplayRow } from './result.js';
import { byteText, countText, gigabitText, millisecondText } from './units.js';

const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);

/** What a phase's jobs brought. */
export function phaseSummary(results: readonly JobResults[]): string {
  const parts: string[] = [];
  const neighbours = results.flatMap((result) => result.neighbours ?? []);
  if (neighbours.length > 0) parts.push(`${neighbours.length} addresses found`);
  const pings = results.flatMap((result) => result.pings ?? []);
  if (pings.length > 0) {
    const received = sum(pings.map((row) => row.received));
    const average = sum(pings.map((row) => row.avgMs * row.received)) / Math.max(received, 1);
    const sent = sum(pings.map((row) => row.sent));
    parts.push(`${received} of ${sent} answered, ${millisecondText(average)} ms on average`);
  }
  const tcp = results.flatMap((result) => result.tcp ?? []);
  if (tcp.length > 0) {
    const rate = gigabitText(sum(tcp.map((row) => row.bitsPerSecond)));
    const hashes = tcp.every((row) => row.intact) ? 'hashes equal' : 'NOT INTACT';
    parts.push(`${byteText(sum(tcp.map((row) => row.bytesReceived)))}, ${rate} Gbit/s, ${hashes}`);
  }
  const udp = results.flatMap((result) => result.udp ?? []);
  if (udp.length > 0) {
    const bad = sum(udp.map((row) => row.lost + row.wrong + row.reordered + row.duplicates));
    const state = bad === 0 ? 'all there, in order' : `${bad} LOST OR WRONG`;
    parts.push(`${countText(sum(udp.map((row) => row.datagramsSent)))} datagrams, ${state}`);
  }
  return parts.join('; ');
}

export function replaySummary(row: ReplayRow): string {
  const bad = row.framesSent - row.framesReceived + row.framesWrong;
  const state = bad === 0 ? 'all there, unchanged' : `${bad} LOST OR WRONG`;
  return `${countText(row.framesSent)} frames, ${gigabitText(row.bitsPerSecond)} Gbit/s, ${state}`;
}
