import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BTF_INT_ENCODING, BTF_KIND } from '../../wire/btf.js';
import { readBits, writeBits } from './bits.js';
import { Btf } from './btf.js';
import { type JsonValue, jsonToValue, valueToJson } from './btf-json.js';
import { ObjectError } from './errors.js';
import { BtfWriter } from './object-testing.js';

const { SIGNED, BOOL } = BTF_INT_ENCODING;

/** A set of types with names, and a struct that has one of each. */
function types() {
  const w = new BtfWriter();
  const u8 = w.int('unsigned char', 1);
  const u32 = w.int('unsigned int', 4);
  const u64 = w.int('unsigned long long', 8);
  const s16 = w.int('short', 2, SIGNED);
  const u128 = w.int('unsigned __int128', 16);
  const bool = w.int('_Bool', 1, BOOL);
  const char = w.int('char', 1, SIGNED);
  const text = w.array(char, 8);
  const color = w.enumeration('color', 4, { RED: 0, GREEN: 5, BLUE: -2 });
  const pointer = w.type(BTF_KIND.PTR, '', u32);
  const double = w.type(BTF_KIND.FLOAT, 'double', 8);
  const float = w.type(BTF_KIND.FLOAT, 'float', 4);
  const half = w.struct(BTF_KIND.STRUCT, '', 4, [
    ['low', u8, 0],
    ['high', s16, 16],
  ]);
  const either = w.struct(BTF_KIND.UNION, '', 4, [
    ['whole', u32, 0],
    ['', half, 0],
  ]);
  const typedef = w.type(BTF_KIND.TYPEDEF, 'mac_t', w.array(u8, 6));
  const all = w.struct(BTF_KIND.STRUCT, 'all', 88, [
    ['u64', u64, 0, 0],
    ['s16', s16, 64, 0],
    ['bool', bool, 80, 0],
    ['char', char, 88, 0],
    ['bits', u32, 96, 3],
    ['more', u32, 99, 18],
    ['signed', s16, 117, 5],
    ['shade', color, 128, 32],
    ['', either, 160, 0],
    ['text', text, 192, 0],
    ['pointer', pointer, 256, 0],
    ['double', double, 320, 0],
    ['float', float, 384, 0],
    ['mac', typedef, 416, 0],
    ['__proto__', u8, 464, 0],
    ['points', w.array(half, 2), 480, 0],
    ['large', u128, 576, 0],
  ]);
  const cycle = w.type(BTF_KIND.TYPEDEF, 'loop', 0);
  return { btf: new Btf(w.bytes()), all, text, color, u8, u32, u64, s16, double, float, typedef, cycle, bool };
}

const t = types();

test('a struct with a member of every kind', () => {
  const value = {
    ...{ u64: '18446744073709551615', s16: -2, bool: true, char: 'x', bits: 5, more: 200_000, signed: -3 },
    ...{ shade: 'BLUE', whole: 0xfffe_00_07, low: 7, high: -2, text: 'netvsc', pointer: '0xffff888000001000' },
    ...{
      double: 0.25,
      float: '-0',
      mac: [0, 21, 93, 1, 2, 3],
      points: [
        { low: 1, high: 2 },
        { low: 3, high: -4 },
      ],
    },
    large: '340282366920938463463374607431768211455',
  };
  const json = Object.fromEntries([...Object.entries(value), ['__proto__', 9]]) as JsonValue;
  const bytes = jsonToValue(t.btf, t.all, json);
  assert.deepEqual(valueToJson(t.btf, t.all, bytes), json);
  assert.equal(bytes.length, 88);
  assert.deepEqual([...bytes.subarray(0, 12)], [255, 255, 255, 255, 255, 255, 255, 255, 254, 255, 1, 120]);
  // 5 | 200000 << 3 | (-3 & 31) << 21
  assert.equal(new DataView(bytes.buffer).getUint32(12, true), (5 | (200_000 << 3) | (29 << 21)) >>> 0);
});

test('whatever the bytes, JSON of them gives them back', () => {
  const covered = (bytes: Uint8Array) => {
    const copy = bytes.slice();
    writeBits(copy, 122, 6, 0n); // behind `signed`
    copy[59] = 0; // behind `__proto__`
    for (const at of [61, 65, 68, 69, 70, 71]) copy[at] = 0; // padding of `points`, and behind it
    return copy;
  };
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 88, maxLength: 88 }), (bytes) => {
      const json = valueToJson(t.btf, t.all, bytes);
      const again = jsonToValue(t.btf, t.all, JSON.parse(JSON.stringify(json)) as JsonValue);
      assert.deepEqual(covered(again), covered(bytes));
      assert.deepEqual(jsonToValue(t.btf, t.all, json, { base: bytes }), bytes, 'with the bytes as base, padding too');
    }),
    { numRuns: 300 },
  );
});

test('members that are left out keep what the base has, or are 0', () => {
  const base = new Uint8Array(88).fill(0xff);
  const bytes = jsonToValue(t.btf, t.all, { s16: 1, low: 2 }, { base });
  assert.deepEqual([...bytes.subarray(8, 10)], [1, 0]);
  assert.equal(bytes.filter((byte) => byte !== 0xff).length, 3);
  assert.ok(
    base.every((byte) => byte === 0xff),
    'the base stays',
  );
  assert.equal(
    jsonToValue(t.btf, t.all, { s16: 1 }).reduce((sum, byte) => sum + byte, 0),
    1,
  );
});

for (const [type, json, expected] of [
  ['u8', 256, /size: expected an integer 0\.\.255, got 256/],
  ['u8', -1, /expected an integer 0\.\.255, got -1/],
  ['u8', 1.5, /got 1\.5/],
  ['u8', null, /got null/],
  ['u8', 'seven', /got "seven"/],
  ['s16', 32_768, /expected an integer -32768\.\.32767/],
  ['u64', '18446744073709551616', /0\.\.18446744073709551615/],
  ['u64', 2 ** 53, /got 9007199254740992/],
  ['color', 'PINK', /expected one of RED, GREEN, BLUE, or an integer .*, got "PINK"/],
  ['text', 'nine chars', /expected at most 8 bytes of text, got 10/],
  ['text', 7, /expected an array of 8, got 7/],
  ['typedef', [1, 2, 3, 4, 5, 6, 7], /expected at most 6 elements, got 7/],
  ['typedef', [1, 'x'], /size\[1\]: expected an integer/],
  ['all', { nope: 1 }, /struct all has no member "nope"; it has u64, s16/],
  ['all', [], /expected an object with the members of struct all/],
  ['all', { points: [{ low: 300 }] }, /size\.points\[0\]\.low: expected an integer 0\.\.255, got 300/],
  ['double', 'much', /expected a number, NaN/],
  ['bool', 'yes', /expected an integer/],
] as const) {
  test(`${type} from ${JSON.stringify(json)}: refused with what was expected`, () => {
    const make = () => jsonToValue(t.btf, t[type], json as JsonValue, { name: 'size' });
    assert.throws(make, (error) => error instanceof ObjectError && expected.test(error.message));
  });
}

test('numbers may be text, hexadecimal too', () => {
  assert.deepEqual([...jsonToValue(t.btf, t.u32, '0x10000')], [0, 0, 1, 0]);
  assert.deepEqual([...jsonToValue(t.btf, t.s16, '-0x2')], [254, 255]);
  assert.deepEqual([...jsonToValue(t.btf, t.u8, true)], [1]);
  assert.equal(valueToJson(t.btf, t.bool, Uint8Array.of(7)), 7);
});

test('floating point: what JSON cannot say is text', () => {
  for (const [bits, json] of [
    [0x7ff0000000000000n, 'Infinity'],
    [0xfff0000000000000n, '-Infinity'],
    [0x8000000000000000n, '-0'],
    [0x7ff8000000000000n, 'NaN'],
    [0x7ff800000000beefn, '0x7ff800000000beef'],
    [0x3ff8000000000000n, 1.5],
  ] as const) {
    const bytes = new Uint8Array(BigUint64Array.of(bits).buffer);
    assert.equal(valueToJson(t.btf, t.double, bytes), json);
    assert.deepEqual(jsonToValue(t.btf, t.double, json), bytes);
  }
});

test('text: only what is text to its end', () => {
  const show = (...bytes: number[]) =>
    valueToJson(t.btf, t.text, Uint8Array.from([...bytes, ...Array(8 - bytes.length).fill(0)]));
  assert.equal(show(), '');
  assert.equal(show(0x6e, 0x65, 0x74), 'net');
  assert.equal(show(0xc3, 0xa9), 'é');
  assert.deepEqual(show(0x6e, 0, 0x74), [110, 0, 116, 0, 0, 0, 0, 0]);
  assert.deepEqual(show(0xff), [255, 0, 0, 0, 0, 0, 0, 0]);
  assert.deepEqual(show(1), [1, 0, 0, 0, 0, 0, 0, 0]);
});

test('values of another size, types without a size', () => {
  assert.throws(() => valueToJson(t.btf, t.u32, new Uint8Array(3)), /unsigned int has 4 bytes, got 3/);
  assert.throws(() => jsonToValue(t.btf, t.u32, 1, { base: new Uint8Array(5) }), /has 4 bytes, got 5/);
  assert.throws(() => valueToJson(t.btf, 0, new Uint8Array(0)), /void has no size/);
});

test('hostile types: nested without end, wide without end, members outside', () => {
  const w = new BtfWriter();
  const u8 = w.int('u8', 1);
  // Each has two of the one before: 2^31 values in one byte.
  let wide = u8;
  for (let i = 0; i < 31; i++) {
    wide = w.struct(BTF_KIND.UNION, `u${i}`, 1, [
      ['a', wide, 0],
      ['b', wide, 0],
    ]);
  }
  let flat = u8;
  for (let i = 0; i < 31; i++) {
    flat = w.struct(BTF_KIND.UNION, '', 1, [
      ['', flat, 0],
      ['', flat, 0],
    ]);
  }
  const outside = w.struct(BTF_KIND.STRUCT, 'outside', 1, [['far', u8, 8]]);
  const itself = w.type(BTF_KIND.STRUCT, 'itself', 1, { count: 0 }) + 1;
  w.struct(BTF_KIND.STRUCT, 'endless', 1, [['again', itself, 0]]);
  const none = w.struct(BTF_KIND.STRUCT, 'none', 0, []);
  const many = w.array(none, 0xffffffff);
  const loop = w.type(BTF_KIND.CONST, '', many + 2);
  w.type(BTF_KIND.CONST, '', loop);
  const btf = new Btf(w.bytes());
  const one = new Uint8Array(1);
  assert.throws(() => valueToJson(btf, wide, one), /more than 1000000 values/);
  assert.throws(() => valueToJson(btf, flat, one), /more than 1000000 values|too many members/);
  assert.throws(() => valueToJson(btf, outside, one), /member "far" lies outside of it/);
  assert.throws(() => valueToJson(btf, itself, one), /nested deeper than 32/);
  assert.throws(() => btf.size(loop), /more than 32 typedefs/);
  assert.deepEqual(valueToJson(btf, many, new Uint8Array(0)), []);
});

test('bits: writing changes those bits alone, reading gives them back', () => {
  const at = fc.nat(60);
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 16, maxLength: 16 }),
      at,
      fc.integer({ min: 1, max: 64 }),
      fc.bigInt(0n, 2n ** 64n - 1n),
      (bytes, at, bits, value) => {
        const whole = (from: Uint8Array) => readBits(from, 0, 128);
        const before = whole(bytes);
        const mask = ((1n << BigInt(bits)) - 1n) << BigInt(at);
        writeBits(bytes, at, bits, value);
        assert.equal(readBits(bytes, at, bits), BigInt.asUintN(bits, value));
        assert.equal(whole(bytes) & ~mask, before & ~mask);
      },
    ),
  );
  assert.throws(() => readBits(new Uint8Array(1), 1, 8), RangeError);
  assert.throws(() => writeBits(new Uint8Array(1), 1, 8, 0n), RangeError);
});
