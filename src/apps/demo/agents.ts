// The parent's side of an agent: starts the process, sends commands, gives up on those that take too long.
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { AgentCommand, AgentCommands, AgentMessage, AgentRequest, Progress } from './protocol.js';

const START_MS = 15_000;
const END_MS = 2000;
/** Characters of an agent's stderr that are kept for its obituary. */
const LAST_WORDS = 2000;

interface Pending {
  readonly command: AgentCommand;
  readonly timer: NodeJS.Timeout;
  readonly progress: ((progress: Progress) => void) | undefined;
  resolve(result: unknown): void;
  reject(error: Error): void;
}

export interface CallOptions {
  /** After which the command counts as failed. */
  readonly deadlineMs?: number;
  readonly progress?: (progress: Progress) => void;
}

export class Agent {
  readonly name: string;
  /** Resolves once it has its namespace; rejects when it cannot have one. */
  readonly started: Promise<void>;
  readonly #child: ChildProcess;
  readonly #pending = new Map<number, Pending>();
  readonly #ended: Promise<void>;
  #nextId = 1;
  #stderr = '';
  #obituary: string | undefined;

  private constructor(name: string, child: ChildProcess) {
    this.name = name;
    this.#child = child;
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-LAST_WORDS);
    });
    child.on('message', (message: AgentMessage) => this.#hear(message));
    this.#ended = new Promise((resolve) => {
      const end = (how: string) => {
        const words = this.#stderr.trim();
        this.#obituary ??= `ended (${how})${words === '' ? '' : `: ${words}`}`;
        this.#failAll();
        resolve();
      };
      child.on('error', (error) => end(error.message));
      // 'close' comes after the last of stderr.
      child.on('close', (code, signal) => end(signal ?? `exit code ${code}`));
    });
    this.started = this.#waitForHello();
    this.started.catch(() => {}); // who stops it before it has started does not wait for this
  }

  /** Starts an agent in a new network namespace; `started` rejects when it cannot have one. */
  static spawn(name: string): Agent {
    const child = fork(fileURLToPath(new URL('./agent.js', import.meta.url)), [], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      execArgv: [],
    });
    return new Agent(name, child);
  }

  /** The same, once it has started. */
  static async start(name: string): Promise<Agent> {
    const agent = Agent.spawn(name);
    await agent.started;
    return agent;
  }

  #waitForHello(): Promise<void> {
    return new Promise((resolve, reject) => {
      const fail = (why: string) => {
        clearTimeout(timer);
        this.#child.kill('SIGKILL');
        reject(new Error(`agent ${this.name}: ${why}`));
      };
      const timer = setTimeout(() => fail(`did not start in ${START_MS} ms`), START_MS);
      this.#child.once('message', (message: AgentMessage) => {
        if (message.type !== 'hello') return fail(message.type === 'failed' ? message.reason : 'said no hello');
        clearTimeout(timer);
        resolve();
      });
      this.#ended.then(() => fail(this.#obituary ?? 'ended'));
    });
  }

  /** Its process, in whose namespace the interface is to be made. */
  get pid(): number {
    return this.#child.pid!;
  }

  /** Has the agent do something. Rejects with the agent's error, at the deadline, or when it ends. */
  call<C extends AgentCommand>(
    command: C,
    given: AgentCommands[C]['in'],
    options: CallOptions = {},
  ): Promise<AgentCommands[C]['out']> {
    const { deadlineMs = 10_000, progress } = options;
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      if (this.#obituary) return reject(this.#error(command, this.#obituary));
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(this.#error(command, `not done in ${Math.round(deadlineMs)} ms`));
      }, deadlineMs);
      this.#pending.set(id, { command, timer, progress, resolve: resolve as (result: unknown) => void, reject });
      const request: AgentRequest = { id, command, arguments: given };
      this.#child.send(request, (error) => {
        if (error) this.#take(id)?.reject(this.#error(command, error.message));
      });
    });
  }

  /** Ends the process, without waiting for its end. */
  kill(): void {
    this.#obituary ??= 'was stopped';
    this.#failAll();
    this.#child.kill('SIGKILL');
  }

  /** Ends the process; its namespace goes with it. */
  async stop(): Promise<void> {
    this.kill();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, END_MS);
    });
    await Promise.race([this.#ended, late]);
    clearTimeout(timer);
  }

  #hear(message: AgentMessage): void {
    if (message.type === 'progress') this.#pending.get(message.id)?.progress?.(message.progress);
    else if (message.type === 'result') this.#take(message.id)?.resolve(message.result);
    else if (message.type === 'error') {
      const pending = this.#take(message.id);
      pending?.reject(this.#error(pending.command, message.reason));
    }
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    clearTimeout(pending?.timer);
    return pending;
  }

  #failAll(): void {
    for (const [id, pending] of [...this.#pending]) {
      this.#take(id);
      pending.reject(this.#error(pending.command, this.#obituary!));
    }
  }

  #error(command: AgentCommand, reason: string): Error {
    return new Error(`agent ${this.name}, ${command}: ${reason}`);
  }
}
