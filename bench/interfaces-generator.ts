// The parent's side of the generator process.
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Blast, Blasted, GeneratorEnd, Probe, Probed } from './generator.js';
import { cores, type End, type Interfaces, type Path, pinned } from './interfaces.js';
import { end } from './interfaces-paths.js';

const LATE_MS = 10_000;

const endOf = ({ agent, ifname, mac }: End): GeneratorEnd => ({ pid: agent.pid, ifname, mac });

export class Generator {
  readonly #child: ChildProcess;

  constructor(interfaces: Interfaces) {
    const file = fileURLToPath(new URL('./generator.js', import.meta.url));
    this.#child = pinned(cores().load, () => fork(file, [], { execArgv: [] }));
    interfaces.atEnd(() => end(this.#child));
  }

  /** Sends frames of that length into the path's left interface for a time, as fast as possible. */
  blast(path: Path, bytes: number, ms: number): Promise<Blasted> {
    const task: Blast = { kind: 'blast', left: endOf(path.left), right: endOf(path.right), bytes, ms };
    return this.#do(task, ms) as Promise<Blasted>;
  }

  /** Sends single frames and measures each one's way to the right interface. */
  probe(path: Path, bytes: number, count: number, gapMs: number): Promise<Probed> {
    const task: Probe = { kind: 'probe', left: endOf(path.left), right: endOf(path.right), bytes, count, gapMs };
    return this.#do(task, count * (gapMs + 5)) as Promise<Probed>;
  }

  #do(task: Blast | Probe, ms: number): Promise<unknown> {
    const done = new Promise((resolve, reject) => {
      const over = (work: () => void) => {
        clearTimeout(timer);
        this.#child.off('message', hear).off('exit', gone);
        work();
      };
      const hear = (answer: { result?: unknown; error?: string }) =>
        over(() =>
          answer.error === undefined ? resolve(answer.result) : reject(new Error(`generator: ${answer.error}`)),
        );
      const gone = () => over(() => reject(new Error('generator: ended')));
      const timer = setTimeout(() => over(() => reject(new Error('generator: no answer'))), ms + LATE_MS);
      this.#child.on('message', hear).once('exit', gone);
      this.#child.send(task);
    });
    done.catch(() => {}); // after Ctrl-C nobody may be waiting
    return done;
  }
}
