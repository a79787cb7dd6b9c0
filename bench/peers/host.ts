// The host of the suite `peers`: a machine with one NIC and one uplink for each guest, in one process. Arguments: folder of
// the batons, then the names of the machines.
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import { createDatapath } from '../../src/datapath/datapath.js';
import { PollLoop } from '../../src/ethdev/loop.js';
import { Host } from '../../src/host/host.js';
import { Arena } from '../../src/memory/arena.js';
import { linuxSystem } from '../../src/memory/os/mman.js';
import { setAffinity, setParentDeathSignal } from '../../src/memory/os/process.js';
import { median } from '../traffic.js';
import { Baton } from './baton.js';
import { type HostFigures, MARGIN_MS, parseTask, say, type Task, WARM_UP_MS } from './task.js';
import { TrafficUplink } from './uplink.js';

const BYTES_PER_MACHINE = 384 << 20;
/** Steps between two looks at the clock, in a free run. */
const STEPS = 64;
/** Steps in a row for one turn. */
const ATTEMPTS = 10_000;

interface Machine {
  readonly host: Host;
  readonly uplink: TrafficUplink;
  readonly baton: Baton;
}

const [folder, ...names] = process.argv.slice(2) as [string, ...string[]];
setParentDeathSignal(constants.signals.SIGKILL);
const arena = Arena.create({ bytes: (128 << 20) + names.length * BYTES_PER_MACHINE, system: linuxSystem });
const datapath = createDatapath(arena.memory);
const loop = new PollLoop();
const machines = names.map((machine): Machine => {
  let uplink: TrafficUplink | undefined;
  const host = Host.create({
    ...{ arena, datapath, machine, profile: 'ws2019', nics: [{}] },
    uplinks: [
      (context) => {
        uplink = new TrafficUplink(context);
        return uplink;
      },
    ],
  });
  loop.add(host);
  return { host, uplink: uplink!, baton: new Baton(folder, machine, 'host') };
});

/** Does what there is to do. */
function work({ host }: Machine): void {
  let left = ATTEMPTS;
  while (host.step() > 0) if (--left === 0) throw new Error('the guest gives the host no end of work');
}

/** One half-turn more than the guest has: the first lets it begin, the last takes what it sent. */
function step(machine: Machine, { mode, group, count }: Task): number {
  const { uplink, baton } = machine;
  const ns: number[] = [];
  for (let turn = 0; turn <= count; turn++) {
    baton.wait();
    const start = performance.now();
    if (mode === 'rx' && turn < count) uplink.due = group;
    work(machine);
    ns.push(((performance.now() - start) * 1e6) / group);
    baton.pass();
  }
  return median(ns);
}

function free({ host, uplink, baton }: Machine, { mode, group, count }: Task): void {
  baton.wait();
  const end = performance.now() + WARM_UP_MS + count + MARGIN_MS;
  while (performance.now() < end) {
    for (let i = 0; i < STEPS; i++) {
      if (mode === 'rx') uplink.due = group;
      host.step();
    }
  }
  baton.pass();
}

function perform(machine: Machine, task: Task): HostFigures {
  const { host, uplink } = machine;
  const [nic] = host.state().nics;
  setAffinity([task.cpu]);
  uplink.send(task.bytes, nic!.mac, nic!.subchannels.length > 0);
  const counted = () => (task.mode === 'tx' ? uplink.taken : host.state().nics[0]!.counters.rxPackets!);
  const before = counted();
  let ns: number | undefined;
  if (task.how === 'step') ns = step(machine, task);
  else free(machine, task);
  work(machine);
  return { frames: counted() - before, ...(ns === undefined ? {} : { ns }) };
}

const input = createInterface({ input: process.stdin });
// First word: which machine.
input.on('line', (line) => {
  const [index, ...words] = line.split(' ');
  say('done', perform(machines[Number(index)]!, parseTask(words.join(' '))));
});
input.on('close', async () => {
  await loop.stop();
  for (const { host, baton } of machines) {
    host.close();
    baton.close();
  }
  loop.close();
});
loop.start();
const state = machines.map(({ host }) => ({ path: host.path!, ...host.state().nics[0]! }));
say('ready', { machines: state.map(({ path, uuid, mac }) => ({ path, uuid, mac })) });
