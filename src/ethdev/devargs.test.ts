// Device arguments: what is read, and one clear line for what cannot be.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Devargs, splitArguments } from './devargs.js';
import { PortError } from './errors.js';

const args = (text: string) => new Devargs(text, 'dev0');

function fails(what: () => unknown, message: RegExp): void {
  assert.throws(what, (error: Error) => {
    assert.ok(error instanceof PortError, String(error.stack));
    assert.equal(error.code, 'EINVAL');
    assert.match(error.message, message);
    assert.ok(error.message.startsWith('dev0: '), error.message);
    return true;
  });
}

test('arguments are split at commas outside parentheses', () => {
  assert.deepEqual(splitArguments('', 'x'), []);
  assert.deepEqual(splitArguments('a', 'x'), ['a']);
  assert.deepEqual(splitArguments('a=1,b(c,d=(e,f)),g', 'x'), ['a=1', 'b(c,d=(e,f))', 'g']);
  for (const text of ['a(', 'a)', 'a=(b,c', 'a),b(']) assert.throws(() => splitArguments(text, 'x'), /x: parentheses/);
});

test('values of every kind', () => {
  const given = args('n=12,h=0x1F,f=.25,e=1e-3,flag,off=0,s=text=more,p(one, two),r=1,r=2');
  assert.equal(given.number('n', 5), 12);
  assert.equal(given.number('h', 5), 31);
  assert.equal(given.number('absent', 5), 5);
  assert.equal(given.fraction('f', 0), 0.25);
  assert.equal(given.fraction('e', 0), 0.001);
  assert.equal(given.fraction('absent', 0.5), 0.5);
  assert.equal(given.flag('flag'), true);
  assert.equal(given.flag('off', true), false);
  assert.equal(given.flag('absent', true), true);
  assert.equal(given.string('s'), 'text=more');
  assert.equal(given.string('p'), 'one, two');
  assert.equal(given.string('absent'), undefined);
  assert.deepEqual(given.all('r'), ['1', '2']);
  given.done(['n']);
});

test('what is wrong is said in one line', () => {
  fails(() => args('=1'), /=1: expected key=value/);
  fails(() => args('a=1,,b'), /expected key=value/);
  fails(() => args('A=1'), /A=1: expected key=value/);
  for (const text of ['n=', 'n=x', 'n=-1', 'n=1.5', 'n=0x', 'n=5000000000'])
    fails(() => args(text).number('n', 0), /n(=.*)?: expected a (number 0 to|value)/);
  fails(() => args('n=9').number('n', 0, 10, 20), /n=9: expected a number 10 to 20/);
  fails(() => args('n=1,n=2').number('n', 0), /expected it once/);
  for (const text of ['f=1.01', 'f=-1', 'f=0.5.5', 'f=x', 'f=1e400'])
    fails(() => args(text).fraction('f', 0), /f=.*: expected a number 0 to 1/);
  fails(() => args('f=yes').flag('f'), /f=yes: expected 0 or 1/);
  fails(() => args('s').string('s'), /s: expected a value/);
  fails(() => args('a=1,b=2').done(['x', 'y']), /a: unknown argument, expected x, y/);
  fails(() => args('a=1').done([]), /a: unknown argument, expected none/);
});

test('an argument that was asked for is known, whatever its value', () => {
  const key = fc.stringMatching(/^[a-z_][a-z0-9_]{0,8}$/);
  const value = fc.stringMatching(/^[^,()]{1,12}$/);
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.tuple(key, value), { selector: ([name]) => name, maxLength: 6 }),
      fc.nat(5),
      (list, n) => {
        const given = args(list.map(([name, text]) => `${name}=${text}`).join());
        const missing = list[n];
        for (const [name, text] of list) if (name !== missing?.[0]) assert.equal(given.string(name), text);
        if (missing === undefined) given.done([]);
        else fails(() => given.done([]), new RegExp(`${missing[0]}: unknown argument`));
      },
    ),
  );
});

test('any text is read, or is a PortError', () => {
  const text = fc.oneof(fc.string(), fc.stringMatching(/^[a-c=,()0-9.x-]{0,30}$/));
  fc.assert(
    fc.property(text, (given) => {
      try {
        const read = args(given);
        read.all('a');
        read.number('b', 0);
        read.fraction('c', 0);
        read.done([]);
      } catch (error) {
        assert.ok(error instanceof PortError, String(error));
      }
    }),
    { numRuns: 1000 },
  );
});
