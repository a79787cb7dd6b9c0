// netvsc example: a machine of the embedded host, traffic, and one of the programs of examples/ on it.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { createDatapath } from '../../datapath/datapath.js';
import { loopEpochNs, PollLoop } from '../../ethdev/loop.js';
import { Host } from '../../host/host.js';
import { EchoUplink } from '../../host/uplinks/echo.js';
import { Arena } from '../../memory/arena.js';
import { linuxSystem } from '../../memory/os/mman.js';
import { affinity } from '../../memory/os/process.js';
import { removeStaleMachines } from '../../memory/rundir.js';
import { parseIpv4 } from '../../wire/address-text.js';
import { exitCodeOf, type Interrupted, onInterrupt } from '../interrupt.js';
import { packageRoot } from '../package-info.js';
import { SCENES, type Scene, STATION_IP, type Traffic } from './scenes.js';

/** Rings, receive and send buffers of a card, and the pages that its driver sends from. */
const BYTES_PER_CARD = 384 << 20;
const BYTES_SHARED = 128 << 20;
/** How long traffic may take to end. */
const END_MS = 5000;

/** Runs it to its end; resolves to its exit code. Throws when there is no such example, or it is not built. */
export async function runExample(name: string, print: (line: string) => void): Promise<number> {
  const scene = SCENES.find((one) => one.name === name);
  if (!scene) throw new Error(`example: expected one of ${SCENES.map((one) => one.name).join(', ')}, got "${name}"`);
  const program = path.join(packageRoot(), 'dist/examples', scene.file);
  if (!existsSync(program)) throw new Error(`example: ${program} is not built (npm run build)`);
  removeStaleMachines();
  const interrupt = onInterrupt(() => {});
  const machine = `example-${scene.name}-${process.pid}`;
  const arena = Arena.create({ bytes: BYTES_SHARED + scene.cards.length * BYTES_PER_CARD, system: linuxSystem });
  const datapath = createDatapath(arena.memory);
  const host = Host.create({
    ...{ arena, datapath, machine, profile: 'ws2019', seed: randomInt(2 ** 32), epochNs: loopEpochNs() },
    nics: scene.cards.map((vlan) => (vlan ? { vlan } : {})),
    uplinks: scene.station
      ? [
          (context) => {
            const echo = new EchoUplink({ ...context, addresses: [parseIpv4(STATION_IP)!] });
            if (scene.station?.vlan) echo.vlan = scene.station.vlan;
            return echo;
          },
        ]
      : [],
  });
  const loop = new PollLoop();
  const children: ChildProcess[] = [];
  try {
    loop.add(host);
    loop.start();
    print(scene.stage);
    return await play(scene, machine, program, host, children, interrupt.happened, print);
  } finally {
    for (const child of children) child.kill('SIGKILL');
    await loop.stop();
    host.close();
    loop.close();
    interrupt.over();
  }
}

async function play(
  scene: Scene,
  machine: string,
  program: string,
  host: Host,
  children: ChildProcess[],
  interrupted: Promise<never>,
  print: (line: string) => void,
): Promise<number> {
  const { nics } = host.state();
  // Ports come in the order of their UUIDs.
  const own = nics.slice(0, scene.own).sort((a, b) => (a.uuid < b.uuid ? -1 : 1));
  const devices = own.flatMap(({ uuid }) => ['-a', `vmbus:${uuid}`]);
  const cpus = affinity().slice(0, scene.threads).join(',');
  const words = ['--machine', machine, ...devices, '-l', cpus];
  print(`$ node ${path.relative(process.cwd(), program)} ${words.join(' ')}\n`);
  const traffic = scene.traffic && startTraffic(scene.traffic, machine, nics[scene.own]!.uuid, own[0]!.mac);
  const example = spawn(process.execPath, ['--enable-source-maps', program, ...words], { stdio: 'inherit' });
  children.push(example, ...(traffic ? [traffic.child] : []));
  const ended = await Promise.race([
    once(example, 'exit').then(([code]) => (code as number | null) ?? 1),
    interrupted.catch((reason: Interrupted) => exitCodeOf(reason)),
  ]);
  const told = await traffic?.end();
  if (told && told.received !== undefined) print(`\nasked ${told.sent} times, ${told.received} answers`);
  else if (told) print(`\nsent ${told.sent} packets`);
  return ended;
}

interface TrafficProcess {
  readonly child: ChildProcess;
  /** Ends it; its counters, or undefined when it had nothing to tell. */
  end(): Promise<Readonly<Record<string, number>> | undefined>;
}

function startTraffic(kind: Traffic, machine: string, uuid: string, receiver: string): TrafficProcess {
  const script = fileURLToPath(new URL('./traffic.js', import.meta.url));
  const words = [kind, machine, uuid, receiver];
  const child = spawn(process.execPath, ['--enable-source-maps', script, ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.on('data', (chunk) => {
    text += chunk;
  });
  const closed = once(child, 'close');
  return {
    child,
    async end() {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), END_MS);
      await closed;
      clearTimeout(timer);
      try {
        return JSON.parse(text) as Record<string, number>;
      } catch {
        return undefined;
      }
    },
  };
}
