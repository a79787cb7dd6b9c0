// Every example of examples/, started by the command that its first lines name.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { SCENES } from '../../src/apps/example/scenes.js';
import { packageRoot } from '../../src/apps/package-info.js';
import { machinePath } from '../../src/memory/rundir.js';

const root = packageRoot();
const main = path.join(root, 'dist/src/cli/main.js');

/** What each says when it works. */
const SAID: Readonly<Record<string, readonly RegExp[]>> = {
  hello: [/driver net_netvsc, address 00:15:5d:/, /10\.0\.0\.1 is at 02:00:00:ec:/, /1 packet sent, 1 received/],
  count: [/L2_ETHER L3_IPV4 L4_TCP +\d+ packets/, /L2_ETHER L3_IPV6 L4_UDP +\d+ packets/, /L2_ARP +\d+ packets/],
  'l2-forward': [/port 0: [1-9]\d* received/, /asked \d+ times, [1-9]\d* answers/],
  'udp-echo': [/10\.0\.0\.1 is at 00:15:5d:/, /[1-9]\d* answered/, /asked \d+ times, [1-9]\d* answers/],
  balancer: [/queue 0: \d+ \+ \d+ \+ \d+ \+ \d+ packets/, /[1-9]\d* packets balanced/],
};

for (const { name, file } of SCENES) {
  test(`netvsc example ${name}`, () => {
    const { stdout, stderr, status } = spawnSync(process.execPath, [main, 'example', name], {
      ...{ encoding: 'utf8', timeout: 120_000 },
    });
    assert.equal(status, 0, stdout + stderr);
    for (const expected of SAID[name]!) assert.match(stdout, expected);
    const machine = /--machine (\S+)/.exec(stdout)![1]!;
    assert.equal(existsSync(machinePath(machine)), false, 'its machine is gone');
    const source = readFileSync(path.join(root, 'examples', file.replace(/\.js$/, '.ts')), 'utf8');
    assert.match(source, new RegExp(`^//   ./netvsc example ${name}$`, 'm'));
  });
}

test('there is no example without a scene, and none that does not exist', () => {
  const files = readdirSync(path.join(root, 'examples')).filter((file) => file.endsWith('.ts'));
  assert.deepEqual(files.sort(), SCENES.map(({ file }) => file.replace(/\.js$/, '.ts')).sort());
  const { stdout, stderr, status } = spawnSync(process.execPath, [main, 'example', 'bogus'], { encoding: 'utf8' });
  assert.equal(status, 1);
  assert.equal(stdout, '');
  assert.match(
    stderr,
    /^netvsc: example: expected one of hello, count, l2-forward, udp-echo, balancer, got "bogus"\n$/,
  );
});
