// What an interface is and does: -i, -S, -d, -P, -T and no option at all.
import type { DriverInfo, LinkInfo } from '../../netdev/control.js';
import { type Asked, badArguments, byIoctl, byNetlink, type Command, netlinkFailure, UsageError } from './types.js';
import { expectNoMore, parseOnOff } from './words.js';

const DRIVER_FAILED = 71;
const DUMP_FAILED = 74;
const LINK_FAILED = 75;
const NO_STATISTICS = 94;
const STATISTICS_FAILED = 96;
const DUMP_PER_LINE = 16;

export const showDriver: Command = async (asked) => {
  if (asked.words.length > 0) throw badArguments();
  return byIoctl(asked, DRIVER_FAILED, 'Cannot get driver information', async (remote) => {
    const [driver, statistics, { sendTable }] = [
      await remote.driverInfo(),
      await remote.statistics(),
      await remote.registers(),
    ];
    asked.out(driverText(driver, statistics.length > 0, sendTable.length > 0));
    return 0;
  });
};

export function driverText(driver: DriverInfo, statistics: boolean, registers: boolean): string {
  const yes = (flag: boolean) => (flag ? 'yes' : 'no');
  return [
    `driver: ${driver.driver}\nversion: ${driver.version}\nfirmware-version: ${driver.firmwareVersion}\n`,
    `expansion-rom-version: \nbus-info: ${driver.busInfo}\n`,
    `supports-statistics: ${yes(statistics)}\nsupports-test: no\nsupports-eeprom-access: no\n`,
    `supports-register-dump: ${yes(registers)}\nsupports-priv-flags: no\n`,
  ].join('');
}

export const showStatistics: Command = async (asked) => {
  const [group, ...groups] = asked.words;
  if (group === '--all-groups' || group === '--groups') return showGroups(asked, group, groups);
  if (group !== undefined) throw new UsageError(`ethtool (-S): unknown parameter '${group}'\n`);
  if (asked.json) throw badArguments();
  return byIoctl(asked, STATISTICS_FAILED, 'Cannot get stats strings information', async (remote) => {
    const statistics = await remote.statistics();
    if (statistics.length === 0) {
      asked.err('no stats available\n');
      return NO_STATISTICS;
    }
    asked.out(`NIC statistics:\n${statistics.map(([name, value]) => `     ${name}: ${value}\n`).join('')}`);
    return 0;
  });
};

/** Standard groups, which hv_netvsc has none of: headings without numbers. */
function showGroups(asked: Asked, option: string, groups: readonly string[]): Promise<number> {
  const known = ['eth-phy', 'eth-mac', 'eth-ctrl', 'rmon'];
  if (option === '--groups') {
    if (groups.length === 0) throw new UsageError("ethtool (-S): no value for parameter '--groups'\n");
    const wrong = groups.find((group) => !known.includes(group));
    if (wrong !== undefined) throw new UsageError(`ethtool (-S): invalid value '${wrong}' for parameter '--groups'\n`);
  } else if (groups.length > 0) throw new UsageError(`ethtool (-S): unknown parameter '${groups[0]}'\n`);
  if (asked.json) throw badArguments();
  return byNetlink(asked, 1, async (remote) => {
    await remote.link();
    asked.out(`Standard stats for ${asked.name}:\n`);
    return 0;
  });
}

export const dumpRegisters: Command = async (asked) => {
  let raw = false;
  for (let at = 0; at < asked.words.length; at += 2) {
    const value = parseOnOff(asked.words[at + 1] ?? '');
    if (value === undefined || !['raw', 'hex'].includes(asked.words[at]!)) throw badArguments();
    if (asked.words[at] === 'raw') raw = value;
  }
  const failed = 'Cannot get driver information';
  return byIoctl(asked, 72, failed, async (remote) => {
    const { sendTable } = await remote.registers();
    if (sendTable.length === 0) {
      asked.err('Cannot get register dump: Operation not supported\n');
      return DUMP_FAILED;
    }
    const bytes = new Uint8Array(sendTable.length * 4);
    const view = new DataView(bytes.buffer);
    for (const [index, entry] of sendTable.entries()) view.setUint32(index * 4, entry, true);
    asked.out(raw ? bytes : dumpText(bytes));
    return 0;
  });
};

export function dumpText(bytes: Uint8Array): string {
  const rows: string[] = [];
  for (let at = 0; at < bytes.length; at += DUMP_PER_LINE) {
    const row = [...bytes.subarray(at, at + DUMP_PER_LINE)].map((byte) => `${byte.toString(16).padStart(2, '0')} `);
    rows.push(`0x${at.toString(16).padStart(4, '0')}:\t\t${row.join('')}\n`);
  }
  return `Offset\t\tValues\n------\t\t------\n${rows.join('')}`;
}

/** Words behind the name do not matter here. */
export const showAddress: Command = async (asked) => {
  try {
    asked.out(`Permanent address: ${await (await asked.open()).permanentAddress()}\n`);
    return 0;
  } catch (error) {
    // By rtnetlink, whose errors have no reasons.
    const quiet = { ...asked, err: (text: string) => asked.err(text.replace(/^netlink error: no device.*\n/, '')) };
    netlinkFailure(quiet, error);
    return 1;
  }
};

/** As for every interface whose packets the kernel stamps. */
export const showTimestamping: Command = (asked) => {
  expectNoMore(asked.words);
  return byNetlink(asked, 1, async (remote) => {
    await remote.link();
    asked.out(
      `Time stamping parameters for ${asked.name}:\nCapabilities:\n\tsoftware-transmit\n\tsoftware-receive\n` +
        '\tsoftware-system-clock\nPTP Hardware Clock: none\nHardware Transmit Timestamp Modes: none\n' +
        'Hardware Receive Filter Modes: none\n',
    );
    return 0;
  });
};

/** Questions that ethtool asks one after the other: modes, port, wake-on-LAN, message level, link. */
const LINK_QUESTIONS = 5;

/** No option. Words behind the name do not matter here either. */
export const showLink: Command = async (asked) => {
  try {
    asked.out(linkText(asked.name, await (await asked.open()).link()));
    return 0;
  } catch (error) {
    const last = LINK_QUESTIONS - 1;
    for (let question = 0; question < last; question++) netlinkFailure(withoutHint(asked), error);
    netlinkFailure(asked, error);
    asked.out('No data available\n');
    return LINK_FAILED;
  }
};

const withoutHint = (asked: Asked): Asked => ({
  ...asked,
  err: (text) => {
    if (!text.startsWith('netvsc: ')) asked.err(text);
  },
});

export function linkText(name: string, { up, speedMbps, fullDuplex, autonegotiated }: LinkInfo): string {
  const modes = (which: string) => [
    `\t${which === 'Supported' ? 'Supported link modes: ' : 'Advertised link modes:'}  Not reported\n`,
    `\t${which} pause frame use: No\n`,
    `\t${which === 'Supported' ? 'Supports' : 'Advertised'} auto-negotiation: No\n`,
    `\t${which} FEC modes: Not reported\n`,
  ];
  return [
    `Settings for ${name}:\n\tSupported ports: [  ]\n`,
    ...modes('Supported'),
    ...modes('Advertised'),
    `\tSpeed: ${speedMbps === 0 ? 'Unknown!' : `${speedMbps}Mb/s`}\n`,
    `\tDuplex: ${fullDuplex ? 'Full' : 'Half'}\n`,
    `\tAuto-negotiation: ${autonegotiated ? 'on' : 'off'}\n`,
    `\tPort: Other\n\tPHYAD: 0\n\tTransceiver: internal\n\tLink detected: ${up ? 'yes' : 'no'}\n`,
  ].join('');
}
