// Options that several commands have.
import { InvalidArgumentError, Option } from 'commander';
import {
  DEFAULT_PROFILE,
  MTU,
  NICS,
  OptionError,
  parseProfile,
  parseSeconds,
  parseWhole,
} from '../apps/demo/options.js';
import { PROFILE_NAMES } from '../host/profiles.js';

/** A parser as commander wants it. */
export function parser<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      // By name: the module would bring the whole host with it.
      if (error instanceof OptionError || (error as Error).name === 'UplinkError') {
        throw new InvalidArgumentError(oneLine((error as Error).message));
      }
      throw error;
    }
  };
}

/** "expected one of" and a list with explanations, less the explanations. */
function oneLine(message: string): string {
  const [first, ...list] = message.split('\n').map((line) => line.trim());
  return [first, list.map((line) => line.split(' ')[0]).join(', ')].join(' ').trim();
}

/** `min`: the demo needs two. */
export const nicsOption = (min: number): Option =>
  new Option('--nics <count>', `NICs on the switch, ${min} to ${NICS.max}`)
    .default(NICS.default)
    .argParser(parser((text) => parseWhole({ ...NICS, min }, text)));

export const profileOption = (): Option =>
  new Option('--profile <name>', `which host to be: ${PROFILE_NAMES.join(', ')}`)
    .default(DEFAULT_PROFILE)
    .argParser(parser((text) => parseProfile(text)));

export const mtuOption = (): Option =>
  new Option('--mtu <bytes>', `MTU of the NICs, ${MTU.min} to ${MTU.max}; 9000 for jumbo frames`)
    .default(MTU.default)
    .argParser(parser((text) => parseWhole(MTU, text)));

export const secondsOption = (what: string): Option =>
  new Option('--seconds <time>', what).argParser(parser((text) => parseSeconds(text)));

export const jsonOption = (): Option => new Option('--json', 'print one JSON document instead').default(false);
