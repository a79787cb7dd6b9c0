// Names that last: a machine's NICs keep MAC address and UUID from one start to the next, so that guests and their
// network configuration know them again.
import { createHash } from 'node:crypto';

/** Microsoft's prefix for the addresses of virtual NICs. */
const MAC_PREFIX = [0x00, 0x15, 0x5d] as const;
/** NICs of a machine: the last address byte counts them. */
const MAX_NICS = 256;

function digest(text: string): Uint8Array {
  return createHash('sha256').update(text).digest();
}

function checkIndex(index: number): void {
  if (!Number.isInteger(index) || index < 0 || index >= MAX_NICS) {
    throw new RangeError(`NIC index: expected 0 to ${MAX_NICS - 1}, got ${index}`);
  }
}

/** 00:15:5d, two bytes from the machine's name, one that counts: NICs of one machine never share an address. */
export function nicMac(machine: string, index: number): Uint8Array {
  checkIndex(index);
  const hash = digest(`netvsc mac ${machine}`);
  return Uint8Array.from([...MAC_PREFIX, hash[0]!, hash[1]!, (hash[2]! + index) & 0xff]);
}

/** A version 8 UUID (RFC 9562) from machine name and index. */
export function nicUuid(machine: string, index: number): string {
  checkIndex(index);
  const hash = digest(`netvsc uuid ${machine} ${index}`).slice(0, 16);
  hash[6] = (hash[6]! & 0x0f) | 0x80;
  hash[8] = (hash[8]! & 0x3f) | 0x80;
  const hex = Buffer.from(hash).toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** "00:15:5d:01:02:03" */
export function macText(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** Six bytes of a station's address, in any of the usual notations. Throws a RangeError. */
export function parseStationMac(text: string): Uint8Array {
  const digits = text.replaceAll(/[:.-]/g, '');
  const mac = /^[0-9a-f]{12}$/i.test(digits) ? Uint8Array.from(Buffer.from(digits, 'hex')) : undefined;
  if (!mac || (mac[0]! & 1) !== 0 || mac.every((byte) => byte === 0)) {
    throw new RangeError(`MAC address: expected 12 hexadecimal digits of a station's address, got ${text}`);
  }
  return mac;
}
