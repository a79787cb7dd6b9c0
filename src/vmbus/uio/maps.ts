// The five maps of a uio_hv_generic node: what they are called, what is in them, how their attributes are checked.
import { PAGE_BYTES, VmbusError } from '../device.js';
import { parseNumber, quote, readAttribute } from './attributes.js';
import type { BusDevice } from './scan.js';

/** Name of each map, by index; those that end in ":" go on with the buffer's GPADL in decimal. */
export const MAP_NAMES = ['txrx_rings', 'int_page', 'monitor_page', 'recv:', 'send:'] as const;

/** A map as its attributes describe it. */
export interface UioMap {
  readonly name: string;
  readonly bytes: number;
  /** 0 unless the name carries one. */
  readonly gpadl: number;
}

/** More than any host offers, less than an arena holds. */
const MAP_BYTES_MAX = 2 ** 30;
const GPADL_MAX = 0xffff_ffff;

/** The maps of a device, checked by name and size. Throws VmbusError: not bound to uio, unexpected map, impossible size. */
export function readMaps(device: BusDevice): UioMap[] {
  if (device.uio === undefined) {
    const { uuid, path, driver = 'no driver' } = device;
    throw new VmbusError(
      `vmbus ${uuid} (${path}): no uio node; uio_hv_generic is not bound to it, but ${driver} ` +
        `('netvsc devbind set-override ${uuid} uio_hv_generic' changes that)`,
    );
  }
  return MAP_NAMES.map((expected, index) => readMap(`${device.path}/uio/${device.uio}/maps/map${index}`, expected));
}

function readMap(path: string, expected: string): UioMap {
  const name = readAttribute(`${path}/name`);
  const buffer = expected.endsWith(':');
  if (buffer ? !name.startsWith(expected) : name !== expected) {
    throw new VmbusError(`${path}/name: expected ${expected}, got ${quote(name)}`);
  }
  const gpadl = buffer ? parseNumber(name.slice(expected.length), 1, GPADL_MAX, `${path}/name`) : 0;
  const bytes = parseNumber(readAttribute(`${path}/size`), PAGE_BYTES, MAP_BYTES_MAX, `${path}/size`);
  if (bytes % PAGE_BYTES !== 0) throw new VmbusError(`${path}/size: expected whole pages, got ${bytes} bytes`);
  return { name, bytes, gpadl };
}
