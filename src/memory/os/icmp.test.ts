import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync } from 'node:fs';
import { test } from 'node:test';
import { ECHO_PAYLOAD_MAX, EchoSocket } from './icmp.js';
import { unshareNetwork } from './netns.js';
import { openTap } from './tap.js';

// The namespace made here ends with this test file's process.
function obstacle(): string | undefined {
  try {
    unshareNetwork();
    execFileSync('ip', ['link', 'set', 'lo', 'up'], { stdio: 'ignore' });
    closeSync(openTap('').fd);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
const why = obstacle();
const skip = why ? { skip: why } : {};

for (const [target, family] of [
  ['127.0.0.1', 4],
  ['::1', 6],
] as const) {
  test(`the kernel answers echo requests of every size over IPv${family}`, skip, () => {
    const socket = new EchoSocket(target);
    try {
      assert.equal(socket.family, family);
      for (const bytes of [0, 1, 56, 1473, ECHO_PAYLOAD_MAX[family]]) {
        const result = socket.echo(bytes, 5000);
        assert.equal(result.outcome, 'reply', JSON.stringify(result));
      }
      assert.throws(() => socket.echo(ECHO_PAYLOAD_MAX[family] + 1, 10), RangeError);
    } finally {
      socket.close();
      socket.close();
    }
  });
}

test('nobody answers: lost, not an exception', skip, () => {
  const tap = openTap('quiet'); // whose packets nobody reads
  execFileSync('ip', ['address', 'add', '192.0.2.1/24', 'dev', tap.name]);
  execFileSync('ip', ['link', 'set', tap.name, 'up']);
  const socket = new EchoSocket('192.0.2.9');
  try {
    assert.equal(socket.echo(56, 20).outcome, 'lost');
  } finally {
    socket.close();
    closeSync(tap.fd);
  }
});

test('addresses that are none, and targets without a route', skip, () => {
  assert.throws(() => new EchoSocket('10.0.0'), RangeError);
  assert.throws(() => new EchoSocket('203.0.113.1'), { code: 'ENETUNREACH' });
});
