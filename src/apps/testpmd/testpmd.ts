// netvsc testpmd: forwards packets between ports, led by options, a command file, or a prompt.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { initEal } from '../../drivers/platform.js';
import type { Eal } from '../../ethdev/eal.js';
import { checkOffloads } from '../../ethdev/limits.js';
import type { Mempool } from '../../ethdev/mempool.js';
import type { Interrupt } from '../interrupt.js';
import { Interrupted } from '../interrupt.js';
import { execute } from './commands/index.js';
import { Forwarder } from './forwarder.js';
import { parseTestpmdOptions, type TestpmdOptions } from './options.js';
import type { Output } from './output.js';
import { endPorts, startPorts } from './ports.js';
import { anyKey, prompt, type Terminal } from './prompt.js';
import { Session } from './session.js';
import { portStats } from './stats.js';
import { BURST_MAX, ValueError } from './values.js';

export interface TestpmdSetting {
  readonly out: Output;
  readonly terminal: Terminal;
  readonly interrupt: Interrupt;
}

/** DPDK's numbers for how many mbufs a port may want: descriptors of a queue each way, and what a thread keeps. */
const DESCRIPTORS_USUAL = 2048;
const CACHE = 250;
/** Clears a terminal. */
const CLEAR = '\x1b[2J\x1b[1;1H';

/** Splits a command line at "--": words for the environment, and testpmd's own. */
export function splitWords(words: readonly string[]): { eal: string[]; own: string[] } {
  const at = words.indexOf('--');
  return at < 0 ? { eal: [...words], own: [] } : { eal: words.slice(0, at), own: words.slice(at + 1) };
}

/** Runs it to the end. Throws ValueError or PortError, with one line for the user, when it cannot begin. */
export async function testpmd(words: readonly string[], setting: TestpmdSetting): Promise<void> {
  const { eal: ealWords, own } = splitWords(words);
  const options = parseTestpmdOptions(own);
  const commands = options.commandFile === undefined ? [] : readCommands(options.commandFile);
  const eal = await initEal(ealWords, { log: (line) => setting.out.complain(line), allCpus: true });
  try {
    check(eal, options);
    const session = new Session(eal, makePool(eal, options, setting.out), options, setting.out);
    const forwarder = new Forwarder(session);
    session.forwarder = forwarder;
    tellEvents(session);
    try {
      await run(session, setting, commands);
    } finally {
      if (forwarder.running) await forwarder.stop();
      await endPorts(session);
      forwarder.close();
    }
  } finally {
    await eal.close();
  }
}

function readCommands(file: string): string[] {
  try {
    return readFileSync(file, 'utf8').split('\n');
  } catch (error) {
    throw new ValueError(`option --cmdline-file: ${(error as Error).message}`);
  }
}

async function run(session: Session, setting: TestpmdSetting, commands: readonly string[]): Promise<void> {
  const { out, options } = session;
  if (options.interactive) out.print('Interactive-mode selected');
  if (options.commandFile !== undefined) out.print(`CLI commands to be read from ${options.commandFile}`);
  if (options.interactive && options.autoStart) out.print('Auto-start selected');
  if (options.mode !== 'io') out.print(`Set ${options.mode} packet forwarding mode`);
  for (const { port } of session.open) await port.setPromiscuous(true).catch(() => {}); // as far as the device can
  if (options.deviceStart && session.open.length > 0 && !(await startPorts(session, 'all')))
    throw new ValueError('Start ports failed');
  try {
    for (const line of commands) {
      if (session.ended) break;
      if (options.commandEcho && line.trim() !== '') out.print(`[${path.basename(options.commandFile!)}] ${line}`);
      await Promise.race([execute(session, line), setting.interrupt.happened]);
    }
    if (options.commandFile !== undefined) out.print(`Read CLI commands from ${options.commandFile}`);
    if (!session.ended) await lead(session, setting);
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error;
    out.print('\nSignal received, preparing to exit...');
  }
}

async function lead(session: Session, { terminal, interrupt }: TestpmdSetting): Promise<void> {
  const { out, options, forwarder } = session;
  if (options.interactive) {
    if (options.autoStart) {
      out.print('Start automatic packet forwarding');
      await forwarder.start();
    }
    return prompt(session, terminal, interrupt.happened);
  }
  out.print('No commandline core given, start packet forwarding');
  await forwarder.start(options.txFirst ? 1 : 0);
  if (options.statsPeriod > 0) return showAgain(session, options.statsPeriod, interrupt.happened);
  out.print('Press enter to exit');
  return anyKey(terminal, interrupt.happened);
}

/** --stats-period: until a signal comes. */
async function showAgain(session: Session, seconds: number, interrupted: Promise<never>): Promise<never> {
  for (;;) {
    const now = performance.now();
    const texts = session.open.map((test) => portStats(session, test, now));
    session.out.print(`${CLEAR}\nPort statistics ====================================${texts.join('\n')}`);
    await Promise.race([sleep(seconds * 1000), interrupted]);
  }
}

/** What only the devices that are there can tell. Throws ValueError. */
function check(eal: Eal, options: TestpmdOptions): void {
  const cpus = eal.options.cpus;
  const workers = cpus.slice(1);
  if (workers.length === 0)
    throw new ValueError('No cores defined for forwarding: expected at least two CPUs (option -l)');
  const { cores, coreList, portList, ports } = options;
  if (cores !== undefined && cores > workers.length)
    throw new ValueError(`option --nb-cores: expected 1 to ${workers.length} (option -l), got ${cores}`);
  const core = coreList?.find((cpu) => !workers.includes(cpu));
  if (core !== undefined)
    throw new ValueError(`option --coremask: expected CPUs of ${workers.join(', ')} (option -l), got ${core}`);
  const count = eal.ports.length;
  const port = portList?.find((id) => id >= count);
  if (port !== undefined) throw new ValueError(`option --portmask: expected ports below ${count}, got ${port}`);
  if (ports !== undefined && ports > count)
    throw new ValueError(`option --nb-ports: expected 1 to ${count}, got ${ports}`);
  for (const { id, device, ...port } of eal.ports.map((each) => ({
    id: each.id,
    device: each.device,
    info: each.info(),
  })))
    checkPort(`port ${id} (${device})`, port.info, options);
}

function checkPort(where: string, info: ReturnType<Eal['ports'][number]['info']>, options: TestpmdOptions): void {
  const limits = [
    ['rxq', options.rxQueues, info.maxRxQueues],
    ['txq', options.txQueues, info.maxTxQueues],
    ['rxd', options.rxDescriptors, info.rxDescriptors.max],
    ['txd', options.txDescriptors, info.txDescriptors.max],
  ] as const;
  for (const [name, value, max] of limits) {
    if (value > max)
      throw new ValueError(`option --${name}: expected at most ${max}, the limit of ${where}, got ${value}`);
  }
  checkOffloads(where, info, options.rxOffloads, options.txOffloads);
  if (options.rxInterrupts && !info.rxInterrupts) throw new ValueError(`option --rx-interrupts: ${where} has none`);
}

/** One pool for all ports, as large as DPDK's testpmd would make it for them, or as the options say. */
function makePool(eal: Eal, options: TestpmdOptions, out: Output): Mempool {
  const { rxQueues, txQueues, rxDescriptors, txDescriptors, mbufs, mbufBytes, mbufCache = CACHE } = options;
  const usual = (count: number) => (count === 0 ? 512 : count);
  const queues = rxQueues * usual(rxDescriptors) + txQueues * usual(txDescriptors);
  const keep = eal.options.cpus.length * mbufCache + BURST_MAX;
  const count = mbufs ?? Math.max(1, eal.ports.length) * Math.max(2 * DESCRIPTORS_USUAL, queues) + keep;
  const cache = Math.min(mbufCache, count >>> 2);
  const pool = eal.createMempool('mb_pool_0', { count, room: mbufBytes, cache });
  if (eal.ports.length === 0) out.complain('testpmd: No probed ethernet devices');
  out.complain(`testpmd: create a new mbuf pool <mb_pool_0>: n=${count}, size=${mbufBytes}, socket=0`);
  return pool;
}

function tellEvents({ open, out, options }: Session): void {
  for (const { port } of open) {
    const tell = (event: string) => out.print(`\nPort ${port.id}: ${event} event`);
    if (options.linkEvents) port.on('link', () => tell('link state change'));
    port.on('removed', () => tell('device removal'));
    port.on('recovering', () => tell('error recovering'));
    port.on('recovered', () => tell('error recovery successful'));
  }
}
