// Suite `peers`: our driver and DPDK's net_netvsc, one after the other on the same host, with the same frames. Each guest is
// a process on a machine of its own, which one host process serves. What counts is a guest's own time per packet, measured
// while host and guest take turns on one core; packets per second come from both running at once, a core each.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { onInterrupt } from '../../src/apps/interrupt.js';
import { runEnvironment } from '../../src/apps/run/run.js';
import { macText } from '../../src/host/identity.js';
import { machinePath, removeStaleMachines } from '../../src/memory/rundir.js';
import { buildPmd, EAL, noDpdkBuild } from '../../test/peers/dpdk.js';
import { SIZES } from '../datapath.js';
import { cores } from '../interfaces.js';
import { type Row, Skip, type SuiteResult } from '../report.js';
import { median } from '../traffic.js';
import { batonPaths, makeBaton } from './baton.js';
import { Child } from './child.js';
import { type GuestFigures, type HostFigures, type Task, taskLine } from './task.js';
import { UPLINK_MAC } from './uplink.js';

/** Ratio of the C driver's time per packet to ours (facts/performance.md 9). */
const GOALS = { 64: { tx: 4, rx: 2 }, 1500: { tx: 1.5, rx: 1.5 } } as const;
const GROUP = 256;
const TURNS = 400;
const FREE_MS = 100;

/** Guests by name; devargs of the C driver. Default: frames up to 512 bytes are copied to send, all to receive. The other
 *  one copies whatever fits a section, and hands up the receive buffer's own bytes. */
const GUESTS = {
  ours: undefined,
  net_netvsc: '',
  'net_netvsc tuned': ',tx_copybreak=6000,rx_extmbuf_enable=1,rx_copybreak=0',
} as const;
type GuestName = keyof typeof GUESTS;
const NAMES = Object.keys(GUESTS) as GuestName[];
const PEERS = NAMES.filter((name) => name !== 'ours');

const script = (name: string) => fileURLToPath(new URL(`./${name}.js`, import.meta.url));

type Work = Omit<Task, 'cpu'>;

interface Figures extends GuestFigures {
  readonly hostNs: number | undefined;
}

interface Machine {
  readonly path: string;
  readonly uuid: string;
}

class Bench {
  readonly #folder = mkdtempSync(path.join(tmpdir(), 'netvsc-peers-'));
  readonly #machines = NAMES.map((_, index) => `peers-${process.pid}-${index}`);
  readonly #children: Child[] = [];
  readonly #guests = new Map<GuestName, Child>();
  #host: Child | undefined;
  /** TSC cycles per second. */
  hz = 0;

  async start(): Promise<void> {
    for (const machine of this.#machines) makeBaton(this.#folder, machine);
    this.#host = this.#spawn('host', [process.execPath, script('host'), this.#folder, ...this.#machines]);
    const { machines } = (await this.#host.line('ready')) as { machines: Machine[] };
    for (const [index, name] of NAMES.entries()) {
      const { path: root, uuid } = machines[index]!;
      const devargs = GUESTS[name];
      const machine = this.#machines[index]!;
      const guest =
        devargs === undefined
          ? this.#spawn(name, [process.execPath, script('guest'), this.#folder, machine, root, uuid])
          : this.#spawn(name, this.#pmd(machine, `vmbus:${uuid}${devargs}`), runEnvironment(root));
      this.#guests.set(name, guest);
      const { hz } = (await guest.line('ready')) as { hz?: number };
      if (hz !== undefined) this.hz = hz;
    }
  }

  /** One task of one guest; checks that host and guest count the same. */
  async measure(name: GuestName, task: Work): Promise<Figures> {
    const { path: near, load: far } = cores();
    const guestCpu = near;
    const hostCpu = task.how === 'step' ? near : far;
    const [host, guest] = (await Promise.all([
      this.#host!.ask(`${NAMES.indexOf(name)} ${taskLine({ ...task, cpu: hostCpu })}`),
      this.#guests.get(name)!.ask(taskLine({ ...task, cpu: guestCpu })),
    ])) as [HostFigures, GuestFigures];
    const what = `${name}, ${task.how} ${task.mode} ${task.bytes} B`;
    if (guest.wrong > 0) throw new Error(`${what}: ${guest.wrong} packets were not what the host sent`);
    if (task.how === 'step' && host.frames !== guest.packets) {
      throw new Error(`${what}: the guest counts ${guest.packets} packets, the host ${host.frames}`);
    }
    return { ...guest, hostNs: host.ns };
  }

  async stop(): Promise<void> {
    for (const child of this.#children.splice(0).reverse()) await child.stop();
    this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
    for (const machine of this.#machines) rmSync(machinePath(machine), { recursive: true, force: true });
  }

  kill(): void {
    for (const child of this.#children) child.kill();
  }

  #pmd(machine: string, device: string): [string, ...string[]] {
    const { toGuest, toHost } = batonPaths(this.#folder, machine);
    const eal = [...EAL, '-l', String(cores().path), '-a', device];
    return [buildPmd('bench/peers/guest.c'), ...eal, '--', macText(UPLINK_MAC), toGuest, toHost];
  }

  #spawn(name: string, command: [string, ...string[]], env?: NodeJS.ProcessEnv): Child {
    const child = new Child(name, command, env);
    this.#children.push(child);
    return child;
  }
}

const twoCores = () => cores().path !== cores().load;

/** What is measured, in the order of the report. */
function works(): Work[] {
  const hows = twoCores() ? (['step', 'free'] as const) : (['step'] as const);
  return hows.flatMap((how) =>
    SIZES.flatMap((bytes) =>
      (['tx', 'rx'] as const).map((mode) => ({
        how,
        mode,
        bytes,
        group: GROUP,
        count: how === 'step' ? TURNS : FREE_MS,
      })),
    ),
  );
}

/** 0 when the guest did not get to run in its time. */
const mpps = ({ packets, ms = 0 }: GuestFigures): number => (ms === 0 ? 0 : packets / (ms * 1000));

/** Rows of one work: every guest, then our ratio to the better peer, of the same rounds. */
function rowsOf(work: Work, results: ReadonlyMap<GuestName, Figures[]>, hz: number): Row[] {
  const { how, mode, bytes } = work;
  const stepping = how === 'step';
  const value = stepping ? ({ ns }: Figures) => ns : mpps;
  const middle = (name: GuestName, of: (figures: Figures) => number) => median(results.get(name)!.map(of));
  // With the peer that does this best, of the same rounds. Above 1: ours is better.
  const ratio = (of: (figures: Figures) => number, less: boolean) => {
    const peer = PEERS.reduce((a, b) => (middle(b, of) < middle(a, of) === less ? b : a));
    const ratios = results.get(peer)!.map((theirs, round) => of(theirs) / of(results.get('ours')![round]!));
    const value = median(ratios.filter(Number.isFinite));
    return { peer, value: less ? value : 1 / value };
  };
  const label = `${stepping ? 'in turns' : 'two cores'}, ${mode}`;
  const rows: Row[] = NAMES.map((name) => {
    const cycles = `${((middle(name, ({ ns }) => ns) * hz) / 1e9).toFixed(0)} TSC cycles a packet`;
    const whole = () => middle(name, ({ workNs }) => workNs!).toFixed(1);
    const more = stepping
      ? `${whole()} ns with buffers and headers; host ${middle(name, ({ hostNs }) => hostNs!).toFixed(0)} ns`
      : `${(100 * middle(name, ({ busy }) => busy!)).toFixed(0)} % of the time`;
    const unit = stepping ? 'ns' : 'Mpps';
    return { work: `${label}: ${name}`, bytes, value: middle(name, value), unit, note: `${cycles}; ${more}` };
  });
  const { peer, value: times } = ratio(value, stepping);
  if (!Number.isFinite(times)) return rows; // on a busy machine they may not have run at the same time at all
  const whole = stepping ? ratio(({ workNs }) => workNs!, true) : undefined;
  rows.push({
    work: `${label}: ratio`,
    bytes,
    value: times,
    unit: 'x',
    goal: stepping ? GOALS[bytes as 64 | 1500][mode] : undefined,
    note: whole ? `${peer}; with buffers and headers ${whole.value.toFixed(2)}, ${whole.peer}` : peer,
  });
  return rows;
}

export async function peers(rounds: number): Promise<SuiteResult> {
  const missing = noDpdkBuild();
  if (missing) throw new Skip(`DPDK's driver is the peer, ${missing}`);
  removeStaleMachines();
  const bench = new Bench();
  const interrupt = onInterrupt(() => bench.kill());
  const all = works();
  const results = all.map(() => new Map<GuestName, Figures[]>(NAMES.map((name) => [name, []])));
  const measure = async () => {
    await bench.start();
    // The first round compiles and warms.
    for (let round = -1; round < rounds; round++) {
      for (const [index, work] of all.entries()) {
        for (const name of NAMES) {
          const figures = await bench.measure(name, work);
          if (round >= 0) results[index]!.get(name)!.push(figures);
        }
      }
    }
  };
  try {
    await Promise.race([measure(), interrupt.happened]);
  } catch (error) {
    bench.kill();
    throw error;
  } finally {
    await bench.stop();
    interrupt.over();
  }
  return {
    rows: all.flatMap((work, index) => rowsOf(work, results[index]!, bench.hz)),
    skipped: twoCores() ? [] : ['both at once: host and guest need a core each'],
  };
}
