// Attribute files as a kernel prints them (facts/linux-guest.md 9.4), read without trust: one line, short, a regular file.
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { VmbusError } from '../device.js';

/** A sysfs attribute is at most one page. */
const ATTRIBUTE_BYTES = 4096;

const UUID = /^\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?$/i;

/** Text of an attribute without its newline. Throws VmbusError when it is missing, no regular file, or too long. */
export function readAttribute(path: string): string {
  let fd = -1;
  try {
    // Non-blocking: a FIFO in a foreign tree must not stop us.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    if (!fstatSync(fd).isFile()) throw new VmbusError(`${path}: expected a regular file`);
    const bytes = Buffer.alloc(ATTRIBUTE_BYTES + 1);
    const length = readSync(fd, bytes, 0, bytes.length, null);
    if (length > ATTRIBUTE_BYTES) throw new VmbusError(`${path}: longer than an attribute (${ATTRIBUTE_BYTES} bytes)`);
    return bytes.toString('latin1', 0, length).replace(/\n$/, '');
  } catch (cause) {
    if (cause instanceof VmbusError) throw cause;
    const code = (cause as NodeJS.ErrnoException).code;
    throw new VmbusError(`${path}: cannot be read (${code ?? cause})`, { cause });
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}

/** As readAttribute, but undefined when there is no such file. */
export function readOptionalAttribute(path: string): string | undefined {
  try {
    return readAttribute(path);
  } catch (error) {
    const cause = (error as Error).cause as NodeJS.ErrnoException | undefined;
    if (cause?.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** UUID of an attribute, lower case, without the braces that kernels print. */
export function parseUuid(text: string, path: string): string {
  const match = UUID.exec(text);
  if (!match) throw new VmbusError(`${path}: expected a UUID, got ${quote(text)}`);
  return match[1]!.toLowerCase();
}

/** Decimal or 0x-prefixed number in [minimum, maximum]. */
export function parseNumber(text: string, minimum: number, maximum: number, path: string): number {
  const value = /^(?:0[xX][0-9a-fA-F]{1,16}|[0-9]{1,15})$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= minimum && value <= maximum)) {
    throw new VmbusError(`${path}: expected a number from ${minimum} to ${maximum}, got ${quote(text)}`);
  }
  return value;
}

/** As `%pa` prints a 64-bit size or address. */
export function formatAddress(value: number): string {
  return `0x${value.toString(16).padStart(16, '0')}`;
}

/** Foreign text for a message: short and printable. */
export function quote(text: string): string {
  const short = text.length > 60 ? `${text.slice(0, 60)}...` : text;
  return JSON.stringify(short);
}
