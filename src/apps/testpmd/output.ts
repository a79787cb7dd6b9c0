// Where testpmd's text goes: what DPDK prints on stdout and on stderr.
import type { PortErrorCode } from '../../ethdev/errors.js';
import { PortError } from '../../ethdev/errors.js';

export interface Output {
  /** A line, or several. */
  print(text: string): void;
  /** The same on stderr. */
  complain(text: string): void;
}

export const processOutput: Output = {
  print: (text) => void process.stdout.write(`${text}\n`),
  complain: (text) => void process.stderr.write(`${text}\n`),
};

/** What DPDK's calls return and strerror(3) says, by our codes. */
const ERRNO: Readonly<Record<PortErrorCode, readonly [number, string]>> = {
  EPERM: [1, 'Operation not permitted'],
  EIO: [5, 'Input/output error'],
  ENOMEM: [12, 'Cannot allocate memory'],
  EBUSY: [16, 'Device or resource busy'],
  EEXIST: [17, 'File exists'],
  ENODEV: [19, 'No such device'],
  EINVAL: [22, 'Invalid argument'],
  ENOTSUP: [95, 'Operation not supported'],
  ETIMEDOUT: [110, 'Connection timed out'],
};

export interface Failure {
  /** Positive errno. */
  readonly number: number;
  /** strerror(3)'s text. */
  readonly text: string;
  /** Ours, with what was expected. */
  readonly message: string;
}

/** A PortError in DPDK's terms; anything else is thrown on. */
export function failureOf(error: unknown): Failure {
  if (!(error instanceof PortError)) throw error;
  const [number, text] = ERRNO[error.code];
  return { number, text, message: error.message };
}

/** Runs a call of the device API; its PortError comes back, or undefined when it went well. */
export async function attempt(call: () => Promise<unknown> | unknown): Promise<Failure | undefined> {
  try {
    await call();
    return undefined;
  } catch (error) {
    return failureOf(error);
  }
}
