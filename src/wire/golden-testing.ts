// For tests of this room: vectors written by hand against the tables.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FieldValue } from './field.js';
import { type AnyStruct, WireError } from './struct.js';

/** Hexadecimal digits, spaces ignored. `00*4` repeats a byte. */
export function hex(text: string): Uint8Array<ArrayBuffer> {
  const repeated = text.replace(/([0-9a-f]{2})\*(\d+)/gi, (_, byte: string, count: string) =>
    byte.repeat(Number(count)),
  );
  const digits = repeated.replace(/\s+/g, '');
  assert.equal(digits.length % 2, 0, `odd number of digits in "${text}"`);
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

/** Bytes as hexadecimal digits, for readable differences. */
export function digits(bytes: Uint8Array): string {
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join(' ');
}

/**
 * The struct must encode `value` to `vector` and decode it back. What encode may leave out (constants, reserved) is left
 * out; decode must give at least `value`. The target is full of 0xa5 so that forgotten bytes show.
 */
export function golden(layout: AnyStruct, value: Record<string, FieldValue>, vector: string): void {
  test(`${layout.name}: golden vector`, () => {
    const bytes = hex(vector);
    assert.equal(bytes.length, layout.size, 'bytes of the vector');
    const target = new Uint8Array(layout.size + 16).fill(0xa5);
    layout.encodeInto(value, target, 8);
    assert.equal(digits(target.subarray(8, 8 + layout.size)), digits(bytes), 'encode');
    assert.equal(digits(target.subarray(0, 8)), digits(hex('a5*8')), 'bytes before');
    assert.equal(digits(target.subarray(8 + layout.size)), digits(hex('a5*8')), 'bytes after');
    const decoded = layout.decode(bytes);
    for (const [name, expected] of Object.entries(value)) assert.deepEqual(decoded[name], expected, `decode ${name}`);
    assert.equal(digits(layout.encode(decoded)), digits(bytes), 'encode of decode');
  });
}

/** Runs `run`; only a WireError may come out. Returns undefined then. */
export function onlyWireError<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    assert.ok(error instanceof WireError, `expected a WireError, got ${error}`);
    return undefined;
  }
}

/** `bytes` inside a larger buffer that is full of `filler`. */
export function surrounded(bytes: Uint8Array, filler: number): Uint8Array {
  const large = new Uint8Array(bytes.length + 256).fill(filler);
  large.set(bytes, 128);
  return large.subarray(128, 128 + bytes.length);
}

/** The decoder must throw nothing but WireError, and its result must depend on `bytes` alone. */
export function boundedDecode(decode: (bytes: Uint8Array) => unknown, bytes: Uint8Array): unknown {
  const outcome = (filler: number): unknown => {
    try {
      return decode(surrounded(bytes, filler));
    } catch (error) {
      assert.ok(error instanceof WireError, `expected a WireError, got ${error}`);
      return error.message;
    }
  };
  const first = outcome(0x00);
  assert.deepEqual(outcome(0xff), first);
  return first;
}
