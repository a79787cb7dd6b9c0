// netvsc up --daemon: the same program once more, in a session of its own, with a log instead of a terminal. Who started it hears
// whether the interface is there.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync, rmSync, writeFileSync } from 'node:fs';
import { registerCleanup } from '../../memory/cleanup.js';
import { openRunDirectory } from '../../memory/rundir.js';
import { networkOf } from '../../netdev/control-path.js';
import { existingNetwork, type UpOptions, type UpReady } from './up.js';

/** How long the daemon may take until its interface is there. */
const READY_MS = 30_000;

/** Set in its environment. */
const MARK = 'NETVSC_DAEMON';

export const isDaemon = (): boolean => process.env[MARK] !== undefined;

/** What the daemon tells who started it. */
export type DaemonNews = { readonly ready: UpReady } | { readonly error: string };

/** Files of an interface's daemon, in the run directory: for its user alone. */
export function daemonFiles({ name, network }: Pick<UpOptions, 'name' | 'network'>): { log: string; pid: string } {
  const base = `${openRunDirectory()}/${name}.${networkOf(existingNetwork(network) ?? 'this thread')}`;
  return { log: `${base}.log`, pid: `${base}.pid` };
}

/** Starts `words` of this program's command line as a daemon. Resolves when the interface is there; rejects with the daemon's own
 *  reason when it cannot be. */
export async function startDaemon(options: UpOptions, words: readonly string[]): Promise<UpReady> {
  const { log } = daemonFiles(options);
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;
  const fd = openSync(log, flags, 0o600);
  const child = spawn(process.execPath, [...process.execArgv, process.argv[1]!, ...words], {
    detached: true,
    env: { ...process.env, [MARK]: '1' },
    stdio: ['ignore', fd, fd, 'ipc'],
  });
  closeSync(fd);
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), READY_MS);
  try {
    const message = once(child, 'message', { signal: late.signal }).then(([news]) => news as DaemonNews);
    const exit = once(child, 'exit', { signal: late.signal }).then(
      ([code]): DaemonNews => ({
        error: `the daemon ended with code ${code}, see ${log}`,
      }),
    );
    const news = await Promise.race([message, exit]);
    if ('error' in news) throw new Error(news.error);
    return news.ready;
  } catch (error) {
    if (!late.signal.aborted) throw error;
    child.kill('SIGKILL');
    throw new Error(`${options.name}: the daemon is not ready within ${READY_MS} ms, see ${log}`);
  } finally {
    clearTimeout(timer);
    late.abort(); // whoever still listens
    if (child.connected) child.disconnect();
    child.unref();
  }
}

/** In the daemon: writes its number down until the process ends. */
export function writePid(options: UpOptions): void {
  const { pid } = daemonFiles(options);
  rmSync(pid, { force: true });
  writeFileSync(pid, `${process.pid}\n`, { mode: 0o600, flag: 'wx' });
  registerCleanup(() => rmSync(pid, { force: true }));
}

/** In the daemon: tells who started it, once. */
export function tellStarter(news: DaemonNews): void {
  if (process.connected !== true) return;
  process.send!(news, () => process.disconnect?.());
}
