import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NetdevError } from './control.js';
import { LineReader } from './control-lines.js';
import {
  BadRequest,
  encodeError,
  encodeRequest,
  encodeResult,
  OPERATIONS,
  type OperationName,
  parseReply,
  parseRequest,
} from './control-protocol.js';
import { ShapeError } from './control-shapes.js';

const RUNS = { numRuns: 2000 };

/** BadRequest, or what a request looks like when it was taken. */
function judge(line: string): string {
  try {
    const { op } = parseRequest(line);
    assert.ok(Object.hasOwn(OPERATIONS, op));
    return op;
  } catch (error) {
    assert.ok(error instanceof BadRequest, String(error));
    assert.ok(error.message.length < 2000);
    return 'refused';
  }
}

test('any text is a request or refused with a reason', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 200 }), (line) => {
      assert.equal(judge(line), 'refused');
    }),
    RUNS,
  );
});

test('any JSON is a request or refused; nothing but what is asked for gets through', () => {
  const names = fc.constantFrom(...Object.keys(OPERATIONS), '__proto__', 'constructor', 'toString');
  const arg = fc.dictionary(
    fc.constantFrom('combined', 'wanted', 'rx', 'tx', 'table', 'key', 'flow', 'level', 'rxUsecs', '__proto__', 'x'),
    fc.oneof(
      fc.integer(),
      fc.double(),
      fc.boolean(),
      fc.array(fc.integer({ min: -1, max: 300 }), { maxLength: 50 }),
      fc.constantFrom('tcp4', 'L3', 'ip7', null),
      fc.jsonValue(),
    ),
    { maxKeys: 3 },
  );
  fc.assert(
    fc.property(fc.oneof(fc.integer(), fc.constant('1')), names, fc.oneof(arg, fc.jsonValue()), (id, op, args) => {
      const line = JSON.stringify({ id, op, args });
      if (judge(line) === 'refused') return;
      const request = parseRequest(line);
      // What was taken can be sent again, and means the same.
      const again = parseRequest(encodeRequest(request.id, request.op, request.args as never).trim());
      assert.deepEqual(again, request);
      const { args: taken } = request as { args?: { combined?: number; table?: readonly number[] } };
      if (taken?.combined !== undefined) assert.ok(Number.isInteger(taken.combined) && taken.combined >= 0);
      for (const entry of taken?.table ?? []) assert.ok(Number.isInteger(entry) && entry >= 0 && entry <= 4096);
    }),
    RUNS,
  );
});

test('requests cut, lengthened and changed in one place are refused or still requests', () => {
  const good = [
    encodeRequest(1, 'setChannels', { combined: 4 }),
    encodeRequest(2, 'setFeatures', { wanted: { 'rx-lro': true, 'rx-gro': false } }),
    encodeRequest(3, 'setRss', { table: [0, 1, 2, 3], key: [1, 2, 3] }),
    encodeRequest(4, 'setFlowHash', { flow: 'udp4', level: 'L3' }),
    encodeRequest(5, 'link', undefined),
  ];
  fc.assert(
    fc.property(
      fc.constantFrom(...good),
      fc.nat(200),
      fc.string({ maxLength: 3 }),
      fc.nat(3),
      (line, at, text, cut) => {
        const place = at % line.length;
        judge(line.slice(0, place) + text + line.slice(place + cut));
      },
    ),
    RUNS,
  );
});

test('deep nesting and long lists are refused', () => {
  assert.equal(judge(`${'['.repeat(30_000)}`), 'refused');
  assert.equal(judge(`{"id":1,"op":"setRss","args":{"table":${'['.repeat(20_000)}${']'.repeat(20_000)}}}`), 'refused');
  const table = Array.from({ length: 5000 }, () => 0);
  assert.throws(() => parseRequest(JSON.stringify({ id: 1, op: 'setRss', args: { table } })), /a list of at most 4096/);
  const wanted = Object.fromEntries(Array.from({ length: 300 }, (_, index) => [`f${index}`, true]));
  assert.throws(
    () => parseRequest(JSON.stringify({ id: 1, op: 'setFeatures', args: { wanted } })),
    /at most 256 names/,
  );
});

test('the number of a bad request goes back to whoever sent it, as far as it could be read', () => {
  for (const [line, id] of [
    ['{"id":7,"op":"explode"}', 7],
    ['{"id":7,"op":"link","args":{"x":1}}', 7],
    ['{"id":-1,"op":"link"}', 0],
    ['[7]', 0],
  ] as const)
    assert.throws(
      () => parseRequest(line),
      (error) => error instanceof BadRequest && error.id === id,
      line,
    );
});

test('a feature may be called anything', () => {
  const { args } = parseRequest('{"id":1,"op":"setFeatures","args":{"wanted":{"__proto__":true,"constructor":false}}}');
  assert.deepEqual(Object.entries((args as { wanted: object }).wanted), [
    ['__proto__', true],
    ['constructor', false],
  ]);
});

test('a result that is none does not go out', () => {
  assert.throws(() => encodeResult(1, 'channels', { maxCombined: 1 }), ShapeError);
  assert.throws(() => encodeResult(1, 'statistics', [['x', Number.NaN]]), ShapeError);
  assert.equal(encodeResult(1, 'setChannels', undefined), '{"id":1,"result":null}\n');
});

test('replies: any text is a result, the error that was sent, or a ShapeError', () => {
  const ops = fc.constantFrom(...(Object.keys(OPERATIONS) as OperationName[]));
  fc.assert(
    fc.property(ops, fc.oneof(fc.string(), fc.json()), fc.boolean(), (op, text, wrap) => {
      const line = wrap ? `{"id":1,"result":${text}}` : text;
      try {
        parseReply(line, 1, op);
      } catch (error) {
        assert.ok(error instanceof ShapeError || error instanceof NetdevError, String(error));
      }
    }),
    RUNS,
  );
});

test('errors: codes of ours stay, others become EIO, none is lost', () => {
  const reply = (error: unknown) => {
    try {
      parseReply(encodeError(1, error).trim(), 1, 'link');
    } catch (sent) {
      return sent as NetdevError;
    }
    throw new Error('expected an error');
  };
  assert.equal(reply(new NetdevError('EBUSY', 'hv0', 'so')).code, 'EBUSY');
  assert.equal(reply(new NetdevError('EBUSY', 'hv0', 'so')).message, 'hv0: so');
  assert.equal(reply(Object.assign(new Error('gone'), { code: 'ENODEV' })).code, 'ENODEV');
  assert.equal(reply(Object.assign(new Error('x'), { code: 'EWHATEVER' })).code, 'EIO');
  assert.equal(reply(new ShapeError('x')).code, 'EINVAL');
  assert.equal(reply(new Error('y'.repeat(10_000))).message.length, 4096);
});

test('lines come out as they went in, however they were cut', () => {
  const lines = fc.array(
    fc.string({ maxLength: 40 }).map((line) => line.replaceAll('\n', ' ')),
    { maxLength: 8 },
  );
  fc.assert(
    fc.property(lines, fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 20 }), (given, cuts) => {
      const reader = new LineReader(4096);
      let rest = Buffer.from(given.map((line) => `${line}\n`).join(''));
      const got: string[] = [];
      for (let turn = 0; rest.length > 0; turn++) {
        const size = cuts[turn % cuts.length]!;
        got.push(...reader.push(rest.subarray(0, size))!);
        rest = rest.subarray(size);
      }
      assert.deepEqual(got, given);
      assert.equal(reader.pending, 0);
    }),
    { numRuns: 500 },
  );
});

test('a line of just the limit is read, one more byte is not', () => {
  assert.deepEqual(new LineReader(4).push(Buffer.from('abcd\n')), ['abcd']);
  assert.equal(new LineReader(4).push(Buffer.from('abcde\n')), undefined);
  const slow = new LineReader(4);
  assert.deepEqual(slow.push(Buffer.from('abcd')), []);
  assert.equal(slow.push(Buffer.from('e')), undefined);
});
