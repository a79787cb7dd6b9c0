// What a person sees while the demo runs: lines that change in place on a terminal, plain lines elsewhere.
import { createLogUpdate } from 'log-update';
import { byteText } from './units.js';

/** Told by the demo what it does. */
export interface ProgressSink {
  /** A step begins; `totalBytes` when its bytes are counted. */
  begin(title: string, totalBytes?: number): void;
  /** The step has moved so many bytes. */
  moved(bytes: number): void;
  /** The step is over. */
  done(summary: string): void;
  /** One line that stays. */
  note(text: string): void;
  /** Nothing more comes. */
  end(): void;
}

export const silent: ProgressSink = { begin() {}, moved() {}, done() {}, note() {}, end() {} };

/** Lines for logs: one per finished step. */
export function plainProgress(write: (line: string) => void): ProgressSink {
  let title = '';
  return {
    ...silent,
    begin(next) {
      title = next;
    },
    done: (summary) => write(`${title}: ${summary}`),
    note: write,
  };
}

const FRAMES = ['-', '\\', '|', '/'];
const BAR = 24;
const REDRAW_MS = 100;

/** A terminal: finished steps stay, the current one has a bar. */
export function terminalProgress(stream: NodeJS.WritableStream): ProgressSink {
  const update = createLogUpdate(stream);
  let title: string | undefined;
  let total: number | undefined;
  let bytes = 0;
  let began = 0;
  let frame = 0;
  const draw = () => {
    if (title === undefined) return;
    const seconds = (performance.now() - began) / 1000;
    const rate = seconds > 0 && bytes > 0 ? `, ${((bytes * 8) / seconds / 1e9).toFixed(2)} Gbit/s` : '';
    const bar = total ? ` ${barText(bytes / total)} ${byteText(bytes)} of ${byteText(total)}` : '';
    const moved = !total && bytes > 0 ? ` ${byteText(bytes)}` : '';
    update(`${FRAMES[frame++ % FRAMES.length]} ${title}${bar}${moved}${rate}`);
  };
  const timer = setInterval(draw, REDRAW_MS);
  timer.unref();
  const keep = (line: string) => {
    update(line);
    update.done();
  };
  return {
    begin(next, totalBytes) {
      title = next;
      total = totalBytes;
      bytes = 0;
      began = performance.now();
      draw();
    },
    moved(now) {
      bytes = now;
    },
    done(summary) {
      keep(`  ${title}: ${summary}`);
      title = undefined;
    },
    note: keep,
    end() {
      clearInterval(timer);
      update.clear();
      update.done();
    },
  };
}

export function barText(share: number): string {
  const full = Math.min(Math.max(Math.round(share * BAR), 0), BAR);
  return `[${'#'.repeat(full)}${'.'.repeat(BAR - full)}]`;
}
