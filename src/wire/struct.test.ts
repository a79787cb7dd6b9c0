import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { FieldValue } from './field.js';
import { boundedDecode, digits, hex, onlyWireError } from './golden-testing.js';
import {
  type AnyStruct,
  bytes,
  type FieldInfo,
  guid,
  i32,
  mac,
  struct,
  u8,
  u16,
  u32,
  u64,
  WireError,
} from './struct.js';
import { TABLES } from './tables.js';

const Sample = struct('SAMPLE', {
  kind: u16(0, 'constant', { equals: 7 }),
  flags: u8(2, 'bits', { flags: { A: 1, B: 2 } }),
  mode: u8(3, 'names', { names: { OFF: 0, ON: 1 } }),
  count: u32(4, 'plain', { unit: 'bytes' }),
  big: u64(8, 'bigint'),
  signed: i32(16, 'signed'),
  raw: bytes(20, 2, 'raw', { default: new Uint8Array(2) }),
  // 22..24 is a gap
  id: guid(24, 'guid'),
  address: mac(40, 'mac'),
});

const value = {
  flags: 5,
  mode: 1,
  count: 9,
  big: 0x1122334455667788n,
  signed: -2,
  id: '00112233-4455-6677-8899-aabbccddeeff',
  address: '00:15:5d:01:02:03',
};

const vector = hex(
  '0700 05 01 09000000 8877665544332211 feffffff 0000 0000 33221100554477668899aabbccddeeff 00155d010203',
);

test('offsets, size and fields come from the table', () => {
  assert.equal(Sample.size, 46);
  assert.equal(Sample.offset.big, 8);
  assert.deepEqual(
    Sample.fields.map((f) => f.name),
    ['kind', 'flags', 'mode', 'count', 'big', 'signed', 'raw', 'id', 'address'],
  );
  assert.equal(Sample.fields[3]!.unit, 'bytes');
});

test('encode fills constants, defaults and gaps; decode gives everything back', () => {
  const target = new Uint8Array(48).fill(0xa5);
  Sample.encodeInto(value, target, 1);
  assert.equal(digits(target), digits(hex(`a5 ${digits(vector)} a5`)));
  assert.deepEqual(Sample.decode(target, 1), { kind: 7, raw: new Uint8Array(2), ...value });
});

test('text names values and bits', () => {
  assert.equal(
    Sample.text(Sample.decode(vector)),
    'SAMPLE flags=A|0x4 mode=ON count=9 bytes big=0x1122334455667788 signed=-2 ' +
      'id=00112233-4455-6677-8899-aabbccddeeff address=00:15:5d:01:02:03',
  );
});

test('bad values are refused before anything is written', () => {
  const target = new Uint8Array(46).fill(0xa5);
  const bad: [string, unknown][] = [
    ['flags', 256],
    ['flags', -1],
    ['flags', 1.5],
    ['flags', Number.NaN],
    ['count', 2 ** 32],
    ['big', 2n ** 64n],
    ['big', -1n],
    ['big', 5],
    ['signed', 2 ** 31],
    ['raw', new Uint8Array(3)],
    ['id', '00112233'],
    ['address', '00:15:5d:01:02'],
    ['kind', 8],
  ];
  for (const [field, wrong] of bad) {
    const broken = { ...value, [field]: wrong } as typeof value;
    const matches = (e: unknown) => e instanceof WireError && e.layout === 'SAMPLE' && e.field === field;
    assert.throws(() => Sample.encodeInto(broken, target), matches, `${field} = ${wrong}`);
  }
  assert.ok(target.every((b) => b === 0xa5));
  // @ts-expect-error: a field without default must be given
  assert.throws(() => Sample.encode({ ...value, count: undefined }), WireError);
});

test('decode refuses wrong constants and positions outside', () => {
  const wrong = vector.slice();
  wrong[0] = 8;
  assert.throws(() => Sample.decode(wrong), /SAMPLE\.kind: expected 7, got 8/);
  for (const at of [-1, 0.5, 1, 46, 47, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(() => Sample.decode(vector, at), WireError, `at ${at}`);
    assert.throws(() => Sample.encodeInto(value, new Uint8Array(46), at), WireError, `at ${at}`);
  }
});

test('decoded bytes are copies', () => {
  const copy = vector.slice();
  const { raw } = Sample.decode(copy);
  copy.fill(0xff);
  assert.deepEqual(raw, new Uint8Array(2));
});

test('all tables: unique names, no overlaps, documented fields', () => {
  const names = new Set<string>();
  for (const layout of TABLES) {
    assert.ok(!names.has(layout.name), `${layout.name} twice`);
    names.add(layout.name);
    let end = layout.fields[0]!.offset;
    for (const f of layout.fields) {
      assert.ok(f.offset >= end, `${layout.name}.${f.name} overlaps what precedes it`);
      assert.ok(f.doc.length > 0, `${layout.name}.${f.name} has no text`);
      assert.equal(layout.offset[f.name], f.offset);
      end = f.offset + f.size;
    }
    assert.equal(layout.size, end);
  }
});

const RANGES = { u8: 0xff, u16: 0xffff, u16be: 0xffff, u32: 0xffffffff, u32be: 0xffffffff } as const;

function anyValue(f: FieldInfo): fc.Arbitrary<FieldValue> {
  const raw = fc.uint8Array({ minLength: f.size, maxLength: f.size });
  if (f.equals !== undefined) return fc.constant(f.equals);
  if (f.type === 'u64') return fc.bigInt(0n, 2n ** 64n - 1n);
  if (f.type === 'i32') return fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
  if (f.type === 'bytes') return raw;
  if (f.type === 'guid') return fc.uuid({ version: [1, 2, 3, 4, 5] });
  const pair = (b: number): string => b.toString(16).padStart(2, '0');
  if (f.type === 'mac') return raw.map((b) => Array.from(b, pair).join(':'));
  if (f.type === 'ipv4') return fc.ipV4();
  if (f.type === 'ipv6')
    return raw.map((b) => struct('X', { a: { ...f, offset: 0, options: {} } }).decode(b).a as string);
  return fc.integer({ min: 0, max: RANGES[f.type] });
}

const anyOf = (layout: AnyStruct): fc.Arbitrary<Record<string, FieldValue>> =>
  fc.record(Object.fromEntries(layout.fields.map((f) => [f.name, anyValue(f)])), { noNullPrototype: true });

test('all tables: decode(encode(x)) = x, wherever it lies, and text never fails', () => {
  for (const layout of TABLES) {
    fc.assert(
      fc.property(anyOf(layout), fc.nat(16), (value, at) => {
        const target = new Uint8Array(at + layout.size + 8).fill(0xa5);
        layout.encodeInto(value, target, at);
        assert.deepEqual(layout.decode(target, at), value);
        assert.ok(target.subarray(at + layout.size).every((b) => b === 0xa5));
        assert.ok(layout.text(value).startsWith(layout.name));
      }),
      { numRuns: 25 },
    );
  }
});

test('all tables: arbitrary and cut bytes give a value of those bytes alone, or WireError', () => {
  for (const layout of TABLES) {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: layout.size + 8 }), (input) => {
        boundedDecode((b) => layout.decode(b), input);
      }),
      { numRuns: 25 },
    );
    fc.assert(
      fc.property(anyOf(layout), fc.nat(layout.size - 1), (value, length) => {
        const cut = layout.encode(value).subarray(0, length);
        assert.equal(
          onlyWireError(() => layout.decode(cut)),
          undefined,
        );
      }),
      { numRuns: 10 },
    );
  }
});

test('all tables: bytes survive decode and encode', () => {
  for (const layout of TABLES) {
    const covered = layout.fields.flatMap((f) => Array.from({ length: f.size }, (_, i) => f.offset + i));
    fc.assert(
      fc.property(fc.uint8Array({ minLength: layout.size, maxLength: layout.size }), (input) => {
        const value = onlyWireError(() => layout.decode(input));
        if (value === undefined) return;
        const again = layout.encode(value);
        for (const i of covered) assert.equal(again[i], input[i], `${layout.name} byte ${i}`);
      }),
      { numRuns: 25 },
    );
  }
});
