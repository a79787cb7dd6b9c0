import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { tellServiceManager } from './service.js';

const skip = spawnSync('perl', ['-MSocket', '-e', '1']).status !== 0 && 'needs perl, to receive a datagram';
/** Says "ready", then the first datagram; a name that begins with @ is an abstract one. */
const RECEIVER = `
$name = $ARGV[0]; $name =~ s/^@/\\0/;
socket(S, PF_UNIX, SOCK_DGRAM, 0) or die; bind(S, pack_sockaddr_un($name)) or die;
$| = 1; print "ready\\n"; alarm 30; recv(S, $text, 4096, 0); print $text;`;

async function told(t: TestContext, name: string): Promise<string> {
  const manager = spawn('perl', ['-MSocket', '-e', RECEIVER, name], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => manager.kill('SIGKILL'));
  const close = once(manager, 'close');
  let said = '';
  manager.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  await once(manager.stdout, 'data');
  process.env.NOTIFY_SOCKET = name;
  t.after(() => delete process.env.NOTIFY_SOCKET);
  tellServiceManager('hv0: link up', (line) => assert.fail(line));
  await close;
  return said;
}

test('a service manager is told, by path and by abstract name', { skip }, async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-notify-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const message = 'ready\nREADY=1\nSTATUS=hv0: link up\n';
  assert.equal(await told(t, path.join(folder, 'notify')), message);
  assert.equal(await told(t, `@${folder}/notify`), message);
});

test('without one nothing is told, and one that does not listen is only logged', (t) => {
  const lines: string[] = [];
  delete process.env.NOTIFY_SOCKET;
  tellServiceManager('hv0', (line) => lines.push(line));
  assert.equal(lines.length, 0);
  process.env.NOTIFY_SOCKET = '/nowhere/notify';
  t.after(() => delete process.env.NOTIFY_SOCKET);
  tellServiceManager('hv0', (line) => lines.push(line));
  assert.match(lines.join('\n'), /^NOTIFY_SOCKET: .*\/nowhere\/notify/);
});
