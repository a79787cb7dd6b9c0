// Suite `tap`: 64-byte frames from TAP to TAP, as many as pass in a second.
import { cpuMs, type Interfaces, type Path, receivedPackets, sleep, withInterfaces } from './interfaces.js';
import { Generator } from './interfaces-generator.js';
import { openNetvsc, openNodeForwarder, openTestpmd } from './interfaces-paths.js';
import { type Row, Skip, type SuiteResult } from './report.js';
import { median } from './traffic.js';

const BYTES = 64;
const ROUND_MS = 1000;
/** Left out at a round's beginning: queues fill, the path wakes up. */
const WARM_UP_MS = 200;
const GOALS = { kpps: 450, overTestpmd: 3.5 } as const;

/** Opens what is there of the paths that NetVSC is compared with; `skipped` says what is not. */
export async function openPaths(interfaces: Interfaces): Promise<{ paths: Path[]; skipped: string[] }> {
  const paths: Path[] = [await openNetvsc(interfaces), await openNodeForwarder(interfaces)];
  const skipped: string[] = [];
  try {
    paths.push(await openTestpmd(interfaces));
  } catch (error) {
    if (!(error instanceof Skip)) throw error;
    skipped.push(`testpmd: ${error.message}`);
  }
  return { paths, skipped };
}

export interface Rate {
  /** Thousands of packets per second at the right interface, and per second of CPU time of the path's threads. */
  readonly kpps: number;
  readonly kppsOfCpu: number;
}

export async function measure(generator: Generator, path: Path, ms: number, bytes = BYTES): Promise<Rate> {
  path.resume();
  const done = generator.blast(path, bytes, ms + WARM_UP_MS + 50);
  await sleep(WARM_UP_MS);
  const before = receivedPackets(path.right);
  const cpuBefore = cpuMs(path);
  const start = performance.now();
  await sleep(ms);
  const packets = receivedPackets(path.right) - before;
  const rate = { kpps: packets / (performance.now() - start), kppsOfCpu: packets / (cpuMs(path) - cpuBefore) };
  await done;
  path.pause();
  return rate;
}

export function tap(rounds: number): Promise<SuiteResult> {
  return withInterfaces(async (interfaces) => {
    const { paths, skipped } = await openPaths(interfaces);
    const generator = new Generator(interfaces);
    const rates = new Map<Path['name'], Rate[]>(paths.map(({ name }) => [name, []]));
    for (const path of paths) await measure(generator, path, ROUND_MS / 2); // compiled and warm
    for (let round = 0; round < rounds; round++) {
      for (const path of paths) rates.get(path.name)!.push(await measure(generator, path, ROUND_MS));
    }
    const rows: Row[] = paths.map(({ name }) => {
      const { kpps, kppsOfCpu } = medians(rates.get(name)!);
      const goal = name === 'netvsc' ? GOALS.kpps : undefined;
      // Below the rate when threads did not run all the time: other work had the core.
      const note = `${kppsOfCpu.toFixed(0)} kpps per second of CPU time`;
      return { work: `TAP to TAP: ${name}`, bytes: BYTES, value: kpps, unit: 'kpps', goal, note };
    });
    for (const { name } of paths.slice(1)) {
      // Of the same round, so that a disturbance that lasts meets both.
      const ratios = rates.get(name)!.map(({ kpps, kppsOfCpu }, round) => {
        const ours = rates.get('netvsc')![round]!;
        return { kpps: ours.kpps / kpps, kppsOfCpu: ours.kppsOfCpu / kppsOfCpu };
      });
      const { kpps, kppsOfCpu } = medians(ratios);
      const goal = name === 'testpmd' ? GOALS.overTestpmd : undefined;
      const note = `${kppsOfCpu.toFixed(2)} per second of CPU time`;
      rows.push({ work: `netvsc / ${name}`, bytes: BYTES, value: kpps, unit: 'x', goal, note });
    }
    return { rows, skipped };
  });
}

export const medians = (rates: readonly Rate[]): Rate => ({
  kpps: median(rates.map(({ kpps }) => kpps)),
  kppsOfCpu: median(rates.map(({ kppsOfCpu }) => kppsOfCpu)),
});
