// For tests: one command against an interface in memory, as the program would run it.
import type { NetdevControl } from '../../netdev/control.js';
import type { RemoteNetdev } from '../../netdev/control-client.js';
import { ethtool } from './ethtool.js';
import { BAD_ARGUMENTS, NoSuchInterface } from './types.js';

export interface Outcome {
  readonly out: string;
  readonly err: string;
  readonly code: number;
}

/** The interface as if it were in another process. */
export function asRemote(control: NetdevControl): RemoteNetdev {
  const call =
    <K extends keyof NetdevControl>(name: K) =>
    async (...args: Parameters<NetdevControl[K]>) =>
      (control[name] as (...given: Parameters<NetdevControl[K]>) => unknown)(...args);
  return new Proxy({} as RemoteNetdev, {
    // No promise: whoever waits for it gets it.
    get: (_, name) => (name === 'then' ? undefined : call(name as keyof NetdevControl)),
  });
}

/** `remote` undefined: there is no such interface. */
export async function runEthtool(remote: RemoteNetdev | undefined, ...words: string[]): Promise<Outcome> {
  let out = '';
  let err = '';
  const code = await ethtool(words, {
    open: async (name) => {
      if (!remote) throw new NoSuchInterface(name);
      return remote;
    },
    out: (data) => {
      out += typeof data === 'string' ? data : Buffer.from(data).toString('latin1');
    },
    err: (text) => {
      err += text;
    },
  });
  return { out, err, code };
}

/** Outcomes that many words have. */
export const said = (out: string): Outcome => ({ out, err: '', code: 0 });
export const failed = (code: number, err: string, out = ''): Outcome => ({ out, err, code });
export const netlink = (code: number, ...lines: string[]): Outcome =>
  failed(code, lines.map((line) => `netlink error: ${line}\n`).join(''));
export const silent = said('');
export const bad = failed(1, BAD_ARGUMENTS);
