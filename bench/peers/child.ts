// A process of the suite `peers`: tasks in, results out, a line each.
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** For a start or a task; what takes longer hangs. */
const PATIENCE_MS = 30_000;
/** Lines of its log that are kept for the error message. */
const LAST_WORDS = 5;

interface Line {
  readonly type: string;
}

export class Child {
  readonly #name: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  readonly #log: string[] = [];
  #said: Line[] = [];
  #news: () => void = () => {};
  #end: string | undefined;

  constructor(name: string, [program, ...words]: readonly [string, ...string[]], env: NodeJS.ProcessEnv = process.env) {
    this.#name = name;
    this.#child = spawn(program, words, { stdio: ['pipe', 'pipe', 'pipe'], env });
    this.#child.stdin!.on('error', () => {}); // it has ended: heard of below
    createInterface({ input: this.#child.stdout! }).on('line', (line) => this.#hear(line));
    createInterface({ input: this.#child.stderr! }).on('line', (line) => this.#hear(line));
    this.#ended = new Promise((resolve) => {
      const end = (how: string) => {
        this.#end ??= how;
        this.#news();
        resolve();
      };
      this.#child.once('exit', (code, signal) => end(signal ?? `exit code ${code}`));
      this.#child.once('error', ({ message }) => end(message));
    });
  }

  /** The next line of that type, which nobody has been given yet. Rejects when it ends before, or says nothing. */
  async line(type: string): Promise<unknown> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      const found = this.#said.find((line) => line.type === type);
      if (found) {
        this.#said = this.#said.filter((line) => line !== found);
        return found;
      }
      const late = performance.now() > deadline;
      if (this.#end !== undefined || late) {
        const how = this.#end === undefined ? `did not say '${type}' in ${PATIENCE_MS} ms` : `ended (${this.#end})`;
        throw new Error(`${this.#name} ${how}: ${this.#log.join(' | ')}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1000);
        this.#news = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Has it do a task. */
  ask(task: string): Promise<unknown> {
    this.#child.stdin!.write(`${task}\n`);
    return this.line('done');
  }

  kill(): void {
    if (this.#end === undefined) this.#child.kill('SIGKILL');
  }

  /** Lets it end in order; kills it when it does not. */
  async stop(): Promise<void> {
    const timer = setTimeout(() => this.kill(), 5000);
    this.#child.stdin!.end();
    await this.#ended;
    clearTimeout(timer);
    // Helpers of DPDK's may hold the other ends for longer.
    this.#child.stdout!.destroy();
    this.#child.stderr!.destroy();
  }

  #hear(line: string): void {
    if (!line.startsWith('{')) {
      this.#log.push(line);
      if (this.#log.length > LAST_WORDS) this.#log.shift();
      return;
    }
    this.#said.push(JSON.parse(line));
    this.#news();
  }
}
