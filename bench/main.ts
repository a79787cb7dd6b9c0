// npm run bench [-- SUITE...] [--rounds N] [--minutes N] [--seed N] [--json]: figures of this machine, medians over several rounds, beside the
// goals of the project. Suites: datapath (default); tap, tcp, latency (root; interfaces in namespaces of their own); peers
// (DPDK's C driver beside ours); ports (root; net_tap and net_af_packet, ours and DPDK's); linux (root; interfaces of
// `netvsc up`, each with a process of its own); pmd (testpmd's forward modes; net_netvsc by queues, bursts and copybreak);
// soak (root; two interfaces of `netvsc up` for --minutes, settings changed at random from --seed on).
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { exitCodeOf, Interrupted } from '../src/apps/interrupt.js';
import { calibrate, MODES, type Mode, measureHalves, measureOneThread, measureTwoThreads, SIZES } from './datapath.js';
import { GRO_WORK, measureGro } from './gro.js';
import { latency } from './interfaces-latency.js';
import { linux } from './interfaces-linux.js';
import { tap } from './interfaces-tap.js';
import { tcp } from './interfaces-tcp.js';
import { ports } from './ports.js';
import { type Row, rowText, Skip, type Suite, type SuiteResult } from './report.js';
import { soak } from './soak.js';
import { median } from './traffic.js';

/** Goals (facts/performance.md 9): ns per packet for the halves, Mpps for the rest. */
const GOALS = {
  halves: { guestReceive: 35, guestTransmit: 15 },
  oneThread: { 64: { rx: 20, tx: 50, echo: 14 }, 1500: { rx: 7, tx: 16, echo: 5 } },
  near: { 64: { rx: 15, tx: 25, echo: 11 }, 1500: {} },
  far: { 64: { rx: 4, tx: 7, echo: 3 }, 1500: {} },
} as const;
/** Between the two placements of the virtual CPUs (facts/performance.md 0), ns. */
const NEAR_BELOW_NS = 250;

async function datapath(rounds: number): Promise<SuiteResult> {
  const rows: Row[] = [];
  for (const bytes of SIZES) {
    const samples = Array.from({ length: rounds }, () => measureHalves(bytes, bytes === 64 ? 2000 : 800));
    for (const half of ['guestTransmit', 'guestReceive', 'hostReceive', 'hostDeliver'] as const) {
      const goal = bytes === 64 ? (GOALS.halves as Partial<Record<string, number>>)[half] : undefined;
      rows.push({ work: `half: ${half}`, bytes, value: median(samples.map((one) => one[half])), unit: 'ns', goal });
    }
  }
  for (const work of GRO_WORK) {
    const samples = Array.from({ length: rounds }, () => measureGro(work, 300));
    const note = `${samples[0]!.ratio.toFixed(1)} packets become one`;
    rows.push({ work: work.name, bytes: work.bytes, value: median(samples.map(({ ns }) => ns)), unit: 'ns', note });
  }
  for (const bytes of SIZES) {
    for (const mode of MODES) {
      const value = measureOneThread(bytes, mode, rounds * 3);
      rows.push({ work: `one thread: ${mode}`, bytes, value, unit: 'Mpps', goal: GOALS.oneThread[bytes][mode] });
    }
  }
  for (const bytes of SIZES) {
    for (const mode of MODES) {
      const { mpps, roundTripNs } = await measureTwoThreads(bytes, mode, rounds * 3);
      const place = roundTripNs < NEAR_BELOW_NS ? 'near' : 'far';
      const goal = (GOALS[place][bytes] as Partial<Record<Mode, number>>)[mode];
      const note = `cores ${place} (${roundTripNs.toFixed(0)} ns round trip)`;
      rows.push({ work: `two threads: ${mode}`, bytes, value: mpps, unit: 'Mpps', goal, note });
    }
  }
  return { rows };
}

// Loaded when they are wanted: they look for DPDK and a compiler at once.
const peers: Suite = async (rounds) => (await import('./peers/suite.js')).peers(rounds);

const pmd: Suite = async (rounds) => (await import('./pmd/suite.js')).pmd(rounds);

const endurance: Suite = () => soak({ minutes, seed });

const SUITES: Record<string, Suite> = { datapath, tap, tcp, latency, linux, ports, peers, pmd, soak: endurance };

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '5' },
    minutes: { type: 'string', default: '30' },
    seed: { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
const minutes = Number(values.minutes);
const seed = Number(values.seed);
const wanted = positionals.length > 0 ? positionals : ['datapath'];
const unknown = wanted.find((name) => !(name in SUITES));
const what =
  unknown !== undefined
    ? `no suite ${unknown}`
    : !Number.isInteger(rounds) || rounds < 1 || rounds > 100
      ? `--rounds ${values.rounds}: expected 1 to 100`
      : !(minutes > 0 && minutes <= 10_000)
        ? `--minutes ${values.minutes}: expected more than 0, up to 10000`
        : !(Number.isInteger(seed) && seed > 0 && seed < 2 ** 32)
          ? `--seed ${values.seed}: expected 1 to 4294967295`
          : undefined;
if (what !== undefined) {
  process.stderr.write(`bench: ${what}; suites: ${Object.keys(SUITES).join(', ')}\n`);
  process.exit(1);
}

const calibration = calibrate();
const results: Record<string, SuiteResult> = {};
const load = loadavg();
try {
  for (const name of wanted) {
    try {
      results[name] = await SUITES[name]!(rounds);
    } catch (error) {
      if (!(error instanceof Skip)) throw error;
      results[name] = { rows: [], skipped: [error.message] };
    }
  }
} catch (error) {
  process.stderr.write(`bench: ${(error as Error).message}\n`);
  process.exit(error instanceof Interrupted ? exitCodeOf(error) : 1);
}

if (values.json) {
  const head = { node: process.version, calibrationNs: calibration, rounds, loadBefore: load, loadAfter: loadavg() };
  process.stdout.write(`${JSON.stringify({ ...head, results }, null, 2)}\n`);
} else {
  process.stdout.write(
    `node ${process.version}, calibration loop ${calibration.toFixed(2)} ns, medians of ${rounds} rounds, ` +
      `load before ${load[0]!.toFixed(1)}\n`,
  );
  for (const [name, { rows, skipped = [], notes = [], faults = [] }] of Object.entries(results)) {
    process.stdout.write(`\n${name}\n`);
    for (const row of rows) process.stdout.write(`${rowText(row)}\n`);
    for (const note of notes) process.stdout.write(`  ${note}\n`);
    for (const fault of faults) process.stdout.write(`  FAULT: ${fault}\n`);
    for (const reason of skipped) process.stdout.write(`  skipped: ${reason}\n`);
  }
}
if (Object.values(results).some(({ faults = [] }) => faults.length > 0)) process.exitCode = 1;
