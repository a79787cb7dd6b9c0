// What the commands of `netvsc ethtool` share: who asks, where text goes, and how ethtool words what went wrong.
// Texts and exit codes are those of ethtool 6.1 (Debian 12), taken down from the program itself.
import { NetdevError, type NetdevErrorCode } from '../../netdev/control.js';
import type { RemoteNetdev } from '../../netdev/control-client.js';

/** Where the words lead. */
export interface EthtoolEnvironment {
  /** Throws NoSuchInterface, or another NetdevError. */
  open(name: string): Promise<RemoteNetdev>;
  out(data: string | Uint8Array): void;
  err(text: string): void;
}

/** One command: the interface's name, the words behind it, the flags before it. */
export interface Asked extends Omit<EthtoolEnvironment, 'open'> {
  readonly name: string;
  readonly words: readonly string[];
  readonly json: boolean;
  open(): Promise<RemoteNetdev>;
}

/** Returns the exit code. */
export type Command = (asked: Asked) => Promise<number>;

/** There is none of that name, or none that netvsc runs; the message is for people who wonder about the latter, empty
 *  when there is nothing to wonder about. */
export class NoSuchInterface extends NetdevError {
  readonly hint: string;

  constructor(name: string, hint = '') {
    super('ENODEV', `interface ${name}`, 'no such interface');
    this.hint = hint;
  }
}

/** Words that make no sense. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** ethtool's answer to most words that it does not understand. */
export const BAD_ARGUMENTS = 'ethtool: bad command line argument(s)\nFor more information run ethtool -h\n';

export const badArguments = (): UsageError => new UsageError(BAD_ARGUMENTS);

/** Texts of strerror(3). */
const TEXTS: Readonly<Record<NetdevErrorCode, string>> = {
  EINVAL: 'Invalid argument',
  EOPNOTSUPP: 'Operation not supported',
  EBUSY: 'Device or resource busy',
  ENODEV: 'No such device',
  EIO: 'Input/output error',
  ENOMEM: 'Cannot allocate memory',
  ERANGE: 'Numerical result out of range',
  EPERM: 'Operation not permitted',
  ETIMEDOUT: 'Connection timed out',
};

export const errorText = (code: NetdevErrorCode): string => TEXTS[code];

/** A refusal of the kernel's netlink code, which ethtool passes on: reason, and where in the message the blame lies. */
export class KernelRefusal extends NetdevError {
  /** The interface's own reason, if it has one. */
  readonly hint: string;

  constructor(code: NetdevErrorCode, reason: string, offset: number, hint = '') {
    super(code, 'netlink', reason);
    this.message = `${reason} (offset ${offset})`;
    this.hint = hint;
  }
}

/** What ethtool prints for a failed command that it sends by netlink; the interface's reason stands where the kernel's
 *  would. Others than NetdevErrors are thrown on. */
export function netlinkFailure(asked: Asked, error: unknown): void {
  const { code, message } = expectNetdevError(error);
  const reason = error instanceof NoSuchInterface ? 'no device matches name (offset 24)' : message;
  asked.err(`netlink error: ${reason}\nnetlink error: ${TEXTS[code]}\n`);
  hint(asked, error);
}

/** The same for commands by ioctl, which know no reasons: ethtool's line, then ours. */
export function ioctlFailure(asked: Asked, what: string, error: unknown): void {
  const { code, message } = expectNetdevError(error);
  asked.err(`${what}: ${TEXTS[code]}\n`);
  if (!(error instanceof NoSuchInterface)) asked.err(`netvsc: ${message}\n`);
  hint(asked, error);
}

/** A whole command by netlink: opens, works, and turns a failure into ethtool's text and this exit code. */
export async function byNetlink(
  asked: Asked,
  failureCode: number,
  work: (remote: RemoteNetdev) => Promise<number>,
): Promise<number> {
  try {
    return await work(await asked.open());
  } catch (error) {
    // Where ethtool has begun its JSON by the time that it asks.
    if (asked.json) asked.out('[ ]\n');
    netlinkFailure(asked, error);
    return failureCode;
  }
}

/** The same by ioctl; `what` is how the line begins. */
export async function byIoctl(
  asked: Asked,
  failureCode: number,
  what: string,
  work: (remote: RemoteNetdev) => Promise<number>,
): Promise<number> {
  try {
    return await work(await asked.open());
  } catch (error) {
    ioctlFailure(asked, what, error);
    return failureCode;
  }
}

function expectNetdevError(error: unknown): NetdevError {
  if (error instanceof NetdevError) return error;
  throw error;
}

/** Where ethtool's text leaves a user of netvsc alone. */
function hint(asked: Asked, error: unknown): void {
  const known = error instanceof NoSuchInterface || error instanceof KernelRefusal;
  if (known && error.hint !== '') asked.err(`netvsc: ${error.hint}\n`);
}
