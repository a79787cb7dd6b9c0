// What the processes of the suite `peers` tell each other: tasks as lines of words, which a C program reads easily, results
// as lines of JSON.

/** Not counted at the beginning of a free run. */
export const WARM_UP_MS = 20;
/** How much longer than its guest the host goes on. */
export const MARGIN_MS = 60;

export interface Task {
  /** step: host and guest in turn, a group of packets each. free: both at once, each on a core. */
  readonly how: 'step' | 'free';
  /** As the guest sees it. */
  readonly mode: 'rx' | 'tx';
  /** Of a frame. */
  readonly bytes: number;
  /** Packets of a turn, a multiple of BURST. */
  readonly group: number;
  /** step: turns; free: milliseconds. */
  readonly count: number;
  /** Where the process is to run. */
  readonly cpu: number;
}

export const taskLine = ({ how, mode, bytes, group, count, cpu }: Task): string =>
  `${how} ${mode} ${bytes} ${group} ${count} ${cpu}`;

/** Reads a line of taskLine(). Throws a RangeError. */
export function parseTask(line: string): Task {
  const found = /^(step|free) (rx|tx) (\d+) (\d+) (\d+) (\d+)$/.exec(line);
  if (!found) throw new RangeError(`expected a task, got ${JSON.stringify(line)}`);
  const [bytes, group, count, cpu] = found.slice(3).map(Number) as [number, number, number, number];
  return { how: found[1] as Task['how'], mode: found[2] as Task['mode'], bytes, group, count, cpu };
}

/** A guest's figures for a task. */
export interface GuestFigures {
  readonly packets: number;
  /** ns of the guest per packet. step: in the driver's calls, mean of the turns; free: in those rounds of its loop that
   *  moved packets. */
  readonly ns: number;
  /** step: with taking, filling, looking at and freeing buffers. */
  readonly workNs?: number;
  /** Packets that were not what the host sent. */
  readonly wrong: number;
  /** free: time that counts, and which part of it went to rounds that moved packets. */
  readonly ms?: number;
  readonly busy?: number;
}

/** The host's. */
export interface HostFigures {
  /** Frames that came from the guest, or went to it. */
  readonly frames: number;
  /** step: ns of the host per packet, median of the turns. */
  readonly ns?: number;
}

/** One JSON document on standard output. */
export const say = (type: string, document: object): void => {
  process.stdout.write(`${JSON.stringify({ type, ...document })}\n`);
};
