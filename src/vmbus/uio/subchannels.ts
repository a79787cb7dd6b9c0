// Finds subchannels as DPDK's bus does (facts/dpdk.md 1.4): directories of channels/ with a channel id for a name, the rings
// in one file of each. Files may appear one by one: what is not complete yet is found by a later call.
import { closeSync, readdirSync } from 'node:fs';
import { PAGE_BYTES, VmbusError } from '../device.js';
import { parseNumber, readOptionalAttribute } from './attributes.js';
import { RELID_MAX, readMonitorId } from './scan.js';

export interface FoundSubchannel {
  readonly relid: number;
  readonly subchannelId: number;
  readonly monitorId: number | undefined;
  /** The rings' file, which the caller closes, and its size. */
  readonly fd: number;
  readonly bytes: number;
}

/** More than any ring has, less than an arena. */
const RING_BYTES_MAX = 2 ** 30;

/** The first subchannel below `<device>/channels` whose id is not in `known`. Throws VmbusError for one that makes no sense. */
export function findSubchannel(
  device: string,
  known: readonly number[],
  openRings: (channel: string) => { fd: number; bytes: number },
): FoundSubchannel | undefined {
  const relids = channelIds(`${device}/channels`).filter((relid) => !known.includes(relid));
  for (const relid of relids) {
    const path = `${device}/channels/${relid}`;
    const text = readOptionalAttribute(`${path}/subchannel_id`);
    if (text === undefined) continue;
    const subchannelId = parseNumber(text, 0, RELID_MAX, `${path}/subchannel_id`);
    if (subchannelId === 0) continue;
    const monitorId = readMonitorId(`${path}/monitor_id`);
    const rings = tryOpen(path, openRings);
    if (!rings) continue;
    const { fd, bytes } = rings;
    if (bytes < 4 * PAGE_BYTES || bytes % (2 * PAGE_BYTES) !== 0 || bytes > RING_BYTES_MAX) {
      closeSync(fd);
      throw new VmbusError(`${path}/ring: expected two halves of at least 2 pages each, got ${bytes} bytes`);
    }
    return { relid, subchannelId, monitorId, fd, bytes };
  }
  return undefined;
}

function channelIds(path: string): number[] {
  try {
    const names = readdirSync(path).filter((name) => /^[1-9][0-9]{0,4}$/.test(name));
    return names.map(Number).filter((relid) => relid <= RELID_MAX);
  } catch (cause) {
    if (isMissing(cause)) return [];
    throw new VmbusError(`${path}: cannot be listed (${(cause as NodeJS.ErrnoException).code ?? cause})`, { cause });
  }
}

function tryOpen(
  path: string,
  openRings: (channel: string) => { fd: number; bytes: number },
): { fd: number; bytes: number } | undefined {
  try {
    return openRings(path);
  } catch (cause) {
    if (isMissing(cause)) return undefined;
    throw new VmbusError(`${path}/ring: ${(cause as Error).message}`, { cause });
  }
}

const isMissing = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'ENOENT';
