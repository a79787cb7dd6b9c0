// Interfaces of `netvsc up` in namespaces of their own, each a process, on one host that is a process, too.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, readdirSync, rmSync } from 'node:fs';
import { createInterface, type Interface } from 'node:readline';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { UpReady } from '../../src/apps/up/up.js';
import { createNetwork, inNetwork } from '../../src/memory/os/netns.js';
import { noTapReason } from '../../src/memory/os/tap-testing.js';
import { openRunDirectory } from '../../src/memory/rundir.js';
import { type ControlClient, findControl, type RemoteNetdev } from '../../src/netdev/control-client.js';
import { networkNumber } from '../../src/netdev/control-path.js';
import { testMachineName } from '../../src/vmbus/uio/testing.js';
import type { HostCommand } from './host-process.js';

/** Only to end a test that would hang. */
const LATE_MS = 60_000;
export const cli: string = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const hostScript = fileURLToPath(new URL('./host-process.js', import.meta.url));
const talker = fileURLToPath(new URL('../ethdev/talk.js', import.meta.url));

export function skipReason(): string | false {
  const missing = ['ip', 'ping'].find((program) => spawnSync(program, ['-V']).error !== undefined);
  return noTapReason() || (missing !== undefined && `needs ${missing}`);
}

/** Lines of a process, in order. */
export class Lines {
  readonly all: string[] = [];
  readonly #reader: Interface;
  #next: () => void = () => {};

  constructor(child: ChildProcess) {
    this.#reader = createInterface({ input: child.stdout! });
    this.#reader.on('line', (line) => {
      this.all.push(line);
      this.#next();
    });
    child.once('exit', () => setTimeout(() => this.#next(), 50));
  }

  /** The line of that number. */
  async line(number: number, alive: () => boolean, what: string): Promise<string> {
    for (const end = performance.now() + LATE_MS; this.all.length <= number; ) {
      if (!alive() || performance.now() > end) throw new Error(`${what} did not say line ${number}`);
      await Promise.race([
        new Promise<void>((resolve) => {
          this.#next = resolve;
        }),
        sleep(200),
      ]);
    }
    return this.all[number]!;
  }
}

export class HostProcess {
  readonly machine: string;
  readonly #profile: string;
  #child: ChildProcess;
  #lines: Lines;
  #asked = 0;
  nics: readonly { readonly uuid: string; readonly mac: string }[] = [];

  static async start(t: TestContext, profile = 'ws2019'): Promise<HostProcess> {
    const host = new HostProcess(testMachineName(), profile);
    t.after(() => host.kill());
    await host.#ready();
    return host;
  }

  private constructor(machine: string, profile: string) {
    this.machine = machine;
    this.#profile = profile;
    this.#child = this.#spawn();
    this.#lines = new Lines(this.#child);
  }

  async ask(command: HostCommand): Promise<unknown> {
    this.#child.stdin!.write(`${JSON.stringify(command)}\n`);
    return JSON.parse(await this.#lines.line(++this.#asked, () => this.#alive, 'the host'));
  }

  async kill(): Promise<void> {
    if (!this.#alive) return;
    const exit = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exit;
  }

  /** Another process, the same machine. */
  async restart(): Promise<void> {
    await this.kill();
    this.#child = this.#spawn();
    this.#lines = new Lines(this.#child);
    this.#asked = 0;
    await this.#ready();
  }

  async #ready(): Promise<void> {
    this.nics = JSON.parse(await this.#lines.line(0, () => this.#alive, 'the host'));
  }

  #spawn(): ChildProcess {
    return spawn(process.execPath, ['--enable-source-maps', hostScript, this.machine, this.#profile], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
  }

  get #alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }
}

/** A namespace with, at some time, an interface of ours. */
export class Place {
  readonly fd: number;
  readonly address: string;
  readonly address6: string;
  up: UpProcess | undefined;
  /** How long a program may run. */
  lateMs = LATE_MS;
  readonly #children: ChildProcess[] = [];

  constructor(t: TestContext, number: number) {
    this.fd = createNetwork();
    // Of a killed process in a namespace that had this one's number.
    for (const name of readdirSync(openRunDirectory()))
      if (name.includes(this.network)) rmSync(`${openRunDirectory()}/${name}`, { force: true });
    this.address = `10.81.0.${number}`;
    this.address6 = `fd00:81::${number}`;
    t.after(async () => {
      await this.up?.end();
      for (const child of this.#children) child.kill('SIGKILL');
      closeSync(this.fd);
    });
  }

  get path(): string {
    return `/proc/${process.pid}/fd/${this.fd}`;
  }
  get network(): string {
    return networkNumber(this.fd);
  }

  in<T>(work: () => T): T {
    return inNetwork(this.path, work);
  }

  start(program: string, ...words: string[]): ChildProcess {
    const child = this.in(() => spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'] }));
    this.#children.push(child);
    return child;
  }

  /** Resolves to everything that it said; rejects when it fails. */
  async run(program: string, ...words: string[]): Promise<string> {
    const { said, code } = await this.attempt(program, ...words);
    if (code === 0) return said;
    throw new Error(`${program} ${words.join(' ')} ended with ${code}: ${said}`);
  }

  async attempt(program: string, ...words: string[]): Promise<{ said: string; code: number | string | null }> {
    const child = this.start(program, ...words);
    const timer = setTimeout(() => child.kill('SIGKILL'), this.lateMs);
    let said = '';
    for (const stream of [child.stdout!, child.stderr!])
      stream.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
    const [code, signal] = await once(child, 'close');
    clearTimeout(timer);
    return { said, code: signal ?? code };
  }

  netvsc(...words: string[]): Promise<{ said: string; code: number | string | null }> {
    return this.attempt(process.execPath, cli, ...words);
  }

  ip(command: string): Promise<string> {
    return this.run('ip', ...command.split(' '));
  }

  /** What `ip -j -d link` says of the interface. */
  async link(name = 'hv0'): Promise<Record<string, unknown>> {
    const [found] = JSON.parse(await this.ip(`-j -d link show dev ${name}`)) as Record<string, unknown>[];
    return found!;
  }

  async hasLink(name = 'hv0'): Promise<boolean> {
    return (await this.attempt('ip', 'link', 'show', 'dev', name)).code === 0;
  }

  async address2(name = 'hv0'): Promise<void> {
    await this.ip(`address add ${this.address}/24 dev ${name}`);
    await this.ip(`address add ${this.address6}/64 dev ${name} nodad`);
  }

  /** Answers of `count` pings. */
  async ping(to: string, bytes = 56, count = 3): Promise<number> {
    const words = ['-n', '-c', `${count}`, '-i', '0.02', '-w', '20', '-s', `${bytes}`, to];
    const { said } = await this.attempt('ping', ...words);
    return Number(/(\d+) received/.exec(said)?.[1] ?? 0);
  }

  /** Until it holds. */
  async until(what: string, done: () => Promise<boolean>): Promise<void> {
    for (const end = performance.now() + LATE_MS; !(await done()); ) {
      if (performance.now() > end) throw new Error(`not within ${LATE_MS} ms: ${what}`);
      await sleep(20);
    }
  }

  untilLink(what: string, done: (link: Record<string, unknown>) => boolean): Promise<void> {
    return this.until(what, async () => done(await this.link()));
  }

  async control(t: TestContext, name = 'hv0'): Promise<RemoteNetdev> {
    const client: ControlClient = await findControl(name, { network: this.network });
    t.after(() => client.close());
    return client.remote();
  }
}

/** A `netvsc up` in the foreground. */
export class UpProcess {
  readonly child: ChildProcess;
  readonly exit: Promise<number | string>;
  said = '';
  readonly #lines: Lines;

  constructor(place: Place, name: string, words: readonly string[]) {
    this.child = place.start(process.execPath, '--enable-source-maps', cli, 'up', name, '--json', ...words);
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.said += text;
    });
    this.#lines = new Lines(this.child);
    this.exit = once(this.child, 'exit').then(([code, signal]) => signal ?? code);
    place.up = this;
  }

  get alive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  async ready(): Promise<UpReady> {
    try {
      return JSON.parse(await this.#lines.line(0, () => this.alive, 'netvsc up')) as UpReady;
    } catch (error) {
      throw new Error(`${(error as Error).message}: ${this.said}`);
    }
  }

  /** SIGTERM; SIGKILL when that does not help. */
  async end(): Promise<number | string> {
    if (this.alive) this.child.kill('SIGTERM');
    const late = setTimeout(() => this.child.kill('SIGKILL'), LATE_MS / 2);
    return this.exit.finally(() => clearTimeout(late));
  }
}

/** Interface hv0 on a NIC of the host, with addresses. */
export async function bringUp(place: Place, host: HostProcess, nic: number, ...words: string[]): Promise<UpReady> {
  const up = new UpProcess(place, 'hv0', ['--machine', host.machine, '--device', `${nic}`, ...words]);
  const ready = await up.ready();
  await place.address2();
  return ready;
}

/** Two places with interfaces that reach each other. */
export async function twoPlaces(
  t: TestContext,
  host: HostProcess,
  ...words: string[]
): Promise<readonly [Place, Place]> {
  const places = [new Place(t, 1), new Place(t, 2)] as const;
  await Promise.all(places.map((place, nic) => bringUp(place, host, nic, ...words)));
  return places;
}

/** `from` sends megabytes by TCP and datagrams, checked by hash; what came of it. */
export async function talk(from: Place, to: Place, address: string, megabytes: number, datagrams: number) {
  const listener = to.start(process.execPath, talker, 'listen');
  try {
    await new Lines(listener).line(0, () => listener.exitCode === null, 'the listener');
    const said = await from.run(process.execPath, talker, 'send', address, `${megabytes}`, `${datagrams}`);
    return JSON.parse(said) as { equal: boolean; answered: number; damaged: number };
  } finally {
    listener.kill('SIGKILL');
    await once(listener, 'close');
  }
}
