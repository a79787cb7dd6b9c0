// netvsc ethtool: the words of ethtool, for interfaces of netvsc. One call is one command; its exit code is ethtool's.
import { interfaceIndex } from '../../memory/os/netlink.js';
import { inNetwork } from '../../memory/os/netns.js';
import { NetdevError } from '../../netdev/control.js';
import { type ControlClient, findControl, type RemoteNetdev } from '../../netdev/control-client.js';
import { networkOf, networkPath } from '../../netdev/control-path.js';
import { setFeatures, showFeatures } from './features.js';
import { setFlow, showFlow } from './flow.js';
import { helpText, versionText } from './help.js';
import { dumpRegisters, showAddress, showDriver, showLink, showStatistics, showTimestamping } from './info.js';
import { setRss, showRss } from './rss.js';
import {
  setChannels,
  setCoalescing,
  setPause,
  setRings,
  showChannels,
  showCoalescing,
  showPause,
  showRings,
} from './settings.js';
import {
  type Asked,
  badArguments,
  type Command,
  type EthtoolEnvironment,
  NoSuchInterface,
  UsageError,
} from './types.js';
import { UNSUPPORTED } from './unsupported.js';
import { parseU32 } from './words.js';

interface Entry {
  readonly options: readonly string[];
  readonly run: Command;
  /** What ethtool 6.1 takes --json for, and later ones. */
  readonly json?: true;
  /** A name of more than 15 bytes is refused before anything else: an ioctl has no room for it. */
  readonly byIoctl?: true;
  /** The same, with a message of its own. */
  readonly never?: true;
}

const ENTRIES: readonly Entry[] = [
  { options: ['-a', '--show-pause'], run: showPause, json: true },
  { options: ['-A', '--pause'], run: setPause },
  { options: ['-c', '--show-coalesce'], run: showCoalescing, json: true },
  { options: ['-C', '--coalesce'], run: setCoalescing },
  { options: ['-g', '--show-ring'], run: showRings, json: true },
  { options: ['-G', '--set-ring'], run: setRings },
  { options: ['-k', '--show-features', '--show-offload'], run: showFeatures, json: true },
  { options: ['-K', '--features', '--offload'], run: setFeatures },
  { options: ['-i', '--driver'], run: showDriver, never: true },
  { options: ['-d', '--register-dump'], run: dumpRegisters, never: true },
  { options: ['-S', '--statistics'], run: showStatistics, byIoctl: true },
  { options: ['-n', '-u', '--show-nfc', '--show-ntuple'], run: showFlow, never: true },
  { options: ['-N', '-U', '--config-nfc', '--config-ntuple'], run: setFlow, never: true },
  { options: ['-T', '--show-time-stamping'], run: showTimestamping },
  { options: ['-x', '--show-rxfh-indir', '--show-rxfh'], run: showRss, never: true },
  { options: ['-X', '--set-rxfh-indir', '--rxfh'], run: setRss, never: true },
  { options: ['-P', '--show-permaddr'], run: showAddress },
  { options: ['-l', '--show-channels'], run: showChannels, json: true },
  { options: ['-L', '--set-channels'], run: setChannels },
];

const COMMANDS: ReadonlyMap<string, Entry> = new Map([
  ...ENTRIES.flatMap((entry) => entry.options.map((option) => [option, entry] as const)),
  ...[...UNSUPPORTED].map(([option, run]) => [option, { options: [option], run }] as const),
]);

const NAME_MAX = 15;

/** Performs one command. Returns the exit code. */
export async function ethtool(words: readonly string[], environment: EthtoolEnvironment): Promise<number> {
  const { out, err } = environment;
  try {
    const { json, rest } = takeFlags(words);
    const [first] = rest;
    if (first === undefined) throw badArguments();
    if (first === '-h' || first === '--help' || first === '--version') {
      if (json) throw badArguments();
      out(first === '--version' ? versionText() : helpText());
      return 0;
    }
    const entry = first.startsWith('-') ? COMMANDS.get(first) : { options: [], run: showLink };
    const [name, ...own] = entry?.options.length === 0 ? rest : rest.slice(1);
    if (!entry || name === undefined || (json && !entry.json)) throw badArguments();
    refuseLongName(entry, name);
    return await entry.run({ name, words: own, json, out, err, open: () => environment.open(name) } satisfies Asked);
  } catch (error) {
    if (error instanceof UsageError) err(error.message);
    else if (error instanceof NetdevError) err(`netvsc: ${error.message}\n`);
    else throw error;
    return 1;
  }
}

function takeFlags(words: readonly string[]): { json: boolean; rest: readonly string[] } {
  let json = false;
  let at = 0;
  for (; at < words.length; at++) {
    if (words[at] === '--json') json = true;
    else if (words[at] === '--debug') {
      if (parseU32(words[++at] ?? '') === undefined) throw badArguments();
    } else if (words[at] !== '-I' && words[at] !== '--include-statistics') break;
  }
  return { json, rest: words.slice(at) };
}

function refuseLongName({ byIoctl, never }: Entry, name: string): void {
  if (Buffer.byteLength(name) <= NAME_MAX) return;
  const suffix = 'device name longer than 15 not supported\n';
  if (byIoctl) throw new UsageError(`ioctl-only request, ${suffix}`);
  if (never) throw new UsageError(`ethtool netlink support for subcommand missing, ${suffix}`);
}

/** Interfaces of running `netvsc up` processes of this user; `namespace` as --netns has it. */
export class Interfaces {
  readonly #path: string | undefined;
  readonly #network: string;
  readonly #opened: ControlClient[] = [];

  /** Throws NetdevError (ENODEV): there is no such namespace. */
  constructor(namespace?: string) {
    this.#path = namespace === undefined ? undefined : networkPath(namespace);
    try {
      this.#network = networkOf(this.#path ?? 'this thread');
    } catch (error) {
      const problem = `expected a network namespace, got ${namespace}: ${(error as Error).message}`;
      throw new NetdevError('ENODEV', '--netns', problem, { cause: error });
    }
  }

  /** Throws NoSuchInterface, or another NetdevError. */
  async open(name: string): Promise<RemoteNetdev> {
    try {
      const client = await findControl(name, { network: this.#network });
      this.#opened.push(client);
      return client.remote();
    } catch (error) {
      if (!(error instanceof NetdevError) || (error.code !== 'ENODEV' && error.code !== 'EINVAL')) throw error;
      throw new NoSuchInterface(
        name,
        this.#exists(name) ? `${name} is no interface that netvsc runs for this user` : '',
      );
    }
  }

  close(): void {
    for (const client of this.#opened) client.close();
  }

  /** True when the kernel knows an interface of that name; false also when that cannot be found out. */
  #exists(name: string): boolean {
    const look = () => interfaceIndex(name) > 0;
    try {
      return this.#path === undefined ? look() : inNetwork(this.#path, look);
    } catch {
      return false;
    }
  }
}
