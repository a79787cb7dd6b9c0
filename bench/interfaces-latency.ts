// Suite `latency`: how long a packet takes through an idle path, what the idle path costs, how long attaching takes.
import { cpuMs, type Path, sleep, withInterfaces } from './interfaces.js';
import { Generator } from './interfaces-generator.js';
import { openNetvsc, openNodeForwarder } from './interfaces-paths.js';
import type { Row, SuiteResult } from './report.js';
import { median } from './traffic.js';

const BYTES = 64;
const PACKETS = 200;
const GAP_MS = 5;
const IDLE_MS = 5000;
const GOALS = { p50: 40, idle: 1, attach: 300 } as const;

const percentile = (values: readonly number[], part: number): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
};

/** Per cent of a core that each path's threads take while nothing happens. */
async function idle(paths: readonly Path[]): Promise<number[]> {
  const before = paths.map(cpuMs);
  const start = performance.now();
  await sleep(IDLE_MS);
  const ms = performance.now() - start;
  return paths.map((path, i) => ((cpuMs(path) - before[i]!) / ms) * 100);
}

export async function latency(rounds: number): Promise<SuiteResult> {
  const starts: { startMs: number; attachMs: number }[] = [];
  for (let round = 1; round < rounds; round++) {
    starts.push(await withInterfaces((interfaces) => openNetvsc(interfaces)));
  }
  return withInterfaces(async (interfaces) => {
    const netvsc = await openNetvsc(interfaces);
    starts.push(netvsc);
    const paths: Path[] = [netvsc, await openNodeForwarder(interfaces)];
    const generator = new Generator(interfaces);
    const waits = new Map<Path, { us: number[]; lost: number }>(paths.map((path) => [path, { us: [], lost: 0 }]));
    for (const path of paths) await generator.probe(path, BYTES, PACKETS / 4, GAP_MS); // compiled and learned
    for (let round = 0; round < rounds; round++) {
      for (const path of paths) {
        const { us, lost } = await generator.probe(path, BYTES, PACKETS, GAP_MS);
        const all = waits.get(path)!;
        all.us.push(...us);
        all.lost += lost;
      }
    }
    const rows: Row[] = [];
    for (const path of paths) {
      const { us, lost } = waits.get(path)!;
      for (const part of [50, 90, 99]) {
        const goal = path === netvsc && part === 50 ? GOALS.p50 : undefined;
        const note = part === 50 ? `of ${us.length} packets, ${lost} lost` : undefined;
        const work = `idle to delivered p${part}: ${path.name}`;
        rows.push({ work, bytes: BYTES, value: percentile(us, part / 100), unit: 'us', goal, note });
      }
    }
    const shares = await idle(paths);
    for (const [i, { name }] of paths.entries()) {
      const goal = name === 'netvsc' ? GOALS.idle : undefined;
      rows.push({ work: `CPU of a core while idle: ${name}`, value: shares[i]!, unit: '%', goal });
    }
    const attach = median(starts.map(({ attachMs }) => attachMs));
    rows.push({ work: 'attach of a NIC', value: attach, unit: 'ms', goal: GOALS.attach });
    const start = median(starts.map(({ startMs }) => startMs));
    rows.push({ work: 'worker start to two NICs up', value: start, unit: 'ms' });
    return { rows };
  });
}
