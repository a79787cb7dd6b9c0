// What hv_netvsc does not have, and ethtool knows: the same words, the same refusal, the same exit code.
import { badArguments, byIoctl, byNetlink, type Command, UsageError } from './types.js';
import { kindsOf, parsePairs, parseU32 } from './words.js';

const NOT_SUPPORTED = 'Operation not supported';

interface Refusal {
  readonly options: readonly string[];
  /** Exit code. */
  readonly code: number;
  /** Exit code when there is no such interface, where it is another. */
  readonly noneCode?: number;
  /** How the line of an ioctl begins; without it the command goes by netlink. */
  readonly what?: string;
  /** How the line begins when there is no such interface, where it is another. */
  readonly noneWhat?: string;
  /** True for words that ethtool takes behind the name. */
  readonly takes: (words: readonly string[]) => boolean;
}

const none = (words: readonly string[]): boolean => words.length === 0;
const any = (): boolean => true;
const some = (words: readonly string[]): boolean => words.length > 0;
const mayBe =
  (...known: string[]) =>
  (words: readonly string[]) =>
    words.length === 0 || (words.length === 1 && known.includes(words[0]!));
const pairsOf =
  (...known: string[]) =>
  (words: readonly string[]) =>
    words.length % 2 === 0 && words.every((word, index) => index % 2 === 1 || known.includes(word));

const REFUSALS: readonly Refusal[] = [
  {
    options: ['-t', '--test'],
    ...{
      code: 74,
      what: 'Cannot test',
      noneWhat: 'Cannot get strings',
      takes: mayBe('online', 'offline', 'external_lb'),
    },
  },
  { options: ['-r', '--negotiate'], code: 255, what: 'Cannot restart autonegotiation', takes: none },
  {
    options: ['-p', '--identify'],
    ...{ code: 255, what: 'Cannot identify NIC' },
    takes: (words) => words.length === 0 || (words.length === 1 && parseU32(words[0]!) !== undefined),
  },
  {
    options: ['-e', '--eeprom-dump'],
    ...{ code: 74, what: 'Cannot get EEPROM data', noneWhat: 'Cannot get driver information' },
    takes: pairsOf('raw', 'offset', 'length'),
  },
  {
    options: ['-E', '--change-eeprom'],
    ...{ code: 75, what: 'Cannot set EEPROM data', noneWhat: 'Cannot get driver information' },
    takes: pairsOf('magic', 'offset', 'length', 'value'),
  },
  { options: ['-w', '--get-dump'], code: 1, what: 'Can not get dump level', takes: any },
  { options: ['-W', '--set-dump'], code: 1, what: 'Can not set dump level', takes: some },
  { options: ['-f', '--flash'], code: 1, what: 'Flashing failed', takes: some },
  { options: ['--get-phy-tunable'], code: 87, what: 'Cannot Get PHY downshift count', takes: some },
  { options: ['--set-phy-tunable'], code: 87, what: 'Cannot Set PHY downshift count', takes: some },
  { options: ['--get-tunable', '--set-tunable'], code: 255, what: 'rx-copybreak', takes: some },
  { options: ['--reset'], code: 1, what: 'Cannot issue ETHTOOL_RESET', takes: some },
  { options: ['-Q', '--per-queue'], code: 1, what: 'Cannot get device per queue parameters', takes: some },
  { options: ['-m', '--dump-module-eeprom', '--module-info'], code: 1, takes: any },
  { options: ['--show-eee', '--show-fec', '--show-priv-flags', '--show-module'], code: 1, takes: none },
  { options: ['--set-eee'], code: 76, takes: any },
  { options: ['--set-fec', '--set-module'], code: 83, takes: any },
  { options: ['--set-priv-flags', '--cable-test', '--cable-test-tdr', '--show-tunnels'], code: 1, takes: any },
];

function refuse({ takes, what, noneWhat, code, noneCode }: Refusal): Command {
  return async (asked) => {
    if (!takes(asked.words) || asked.json) throw badArguments();
    const work = async (line: string) => {
      asked.err(`${line}: ${NOT_SUPPORTED}\n`);
      return code;
    };
    if (what === undefined)
      return byNetlink(asked, noneCode ?? code, async (remote) => {
        await remote.link();
        return work('netlink error');
      });
    return byIoctl(asked, noneCode ?? code, noneWhat ?? what, async (remote) => {
      await remote.link();
      return work(what);
    });
  };
}

const noPhyStatistics: Command = async (asked) => {
  if (asked.words.length > 0 || asked.json) throw badArguments();
  return byIoctl(asked, 96, 'Cannot get stats strings information', async (remote) => {
    await remote.link();
    asked.err('no stats available\n');
    return 94;
  });
};

const LINK_FAILED = 75;

/** Speed and duplex are the host's. */
const changeLink: Command = async (asked) => {
  const kinds = kindsOf({
    u32: 'speed lanes phyad',
    'on|off': 'autoneg',
    word: 'duplex port mdix advertise xcvr wol sopass msglvl master-slave',
  });
  const given = parsePairs('-s', asked.name, kinds, asked.words);
  const duplex = given.get('duplex')?.value;
  if (duplex !== undefined && duplex !== 'half' && duplex !== 'full')
    throw new UsageError(`ethtool (-s): invalid value '${duplex}' for parameter 'duplex'\n`);
  if (given.size === 0) return 0;
  return byNetlink(asked, LINK_FAILED, async (remote) => {
    await remote.link();
    asked.err(`netlink error: ${NOT_SUPPORTED}\n`);
    return LINK_FAILED;
  });
};

/** Commands by option. */
export const UNSUPPORTED: ReadonlyMap<string, Command> = new Map<string, Command>([
  ...REFUSALS.flatMap((refusal) => refusal.options.map((option) => [option, refuse(refusal)] as const)),
  ['--phy-statistics', noPhyStatistics],
  ['-s', changeLink],
  ['--change', changeLink],
]);
