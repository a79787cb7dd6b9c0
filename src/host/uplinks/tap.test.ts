import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, constants, openSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { createDatapath } from '../../datapath/datapath.js';
import { Arena } from '../../memory/arena.js';
import { linuxSystem } from '../../memory/os/mman.js';
import { unshareNetwork } from '../../memory/os/netns.js';
import type { Uplink } from '../ports.js';
import { VirtualSwitch } from '../vswitch.js';
import { EchoUplink } from './echo.js';
import { TapUplink } from './tap.js';

// Each test file has a process of its own: the namespaces made here, and all that is in them, end with it.

/** Why interfaces cannot be made here, or undefined. */
function obstacle(...tools: string[]): string | undefined {
  try {
    closeSync(openSync('/dev/net/tun', constants.O_RDWR));
  } catch (error) {
    return `/dev/net/tun: ${(error as NodeJS.ErrnoException).code}`;
  }
  for (const tool of tools) {
    try {
      execFileSync('sh', ['-c', `command -v ${tool}`]);
    } catch {
      return `${tool} is not installed`;
    }
  }
  try {
    unshareNetwork();
  } catch (error) {
    return (error as Error).message;
  }
  return undefined;
}

const ip = (...command: string[]) => execFileSync('ip', command, { stdio: 'pipe' });

function machine(t: TestContext) {
  const arena = Arena.create({ bytes: 48 << 20, system: linuxSystem });
  const datapath = createDatapath(arena.memory);
  const vswitch = new VirtualSwitch({ arena, datapath });
  const uplinks: Uplink[] = [];
  let running = true;
  const turn = () => {
    for (const uplink of uplinks) uplink.poll();
    if (running) setImmediate(turn);
  };
  setImmediate(turn);
  t.after(() => {
    running = false;
    for (const uplink of uplinks) uplink.close();
  });
  const plug = <T extends Uplink>(uplink: T): T => {
    vswitch.addPort(uplink);
    uplinks.push(uplink);
    return uplink;
  };
  return { parts: { arena, datapath, sink: vswitch }, vswitch, plug };
}

const run = (program: string, ...args: string[]) =>
  new Promise<string>((resolve, reject) => {
    execFile(program, args, { timeout: 20_000 }, (error, stdout, stderr) =>
      error ? reject(new Error(`${program}: ${error.message}\n${stdout}${stderr}`)) : resolve(stdout),
    );
  });

test('the kernel pings the echo uplink through a TAP', async (t) => {
  const why = obstacle('ip', 'ping');
  if (why) return t.skip(why);
  const m = machine(t);
  const tap = m.plug(new TapUplink({ ...m.parts, number: 1, interfaceName: 'vs0' }));
  const echo = m.plug(new EchoUplink({ ...m.parts, number: 2 }));
  ip('address', 'add', '10.77.0.1/24', 'dev', 'vs0');
  ip('address', 'add', 'fd77::1/64', 'dev', 'vs0', 'nodad');
  ip('link', 'set', 'vs0', 'up');
  const count = ['-c', '3', '-i', '0.01', '-W', '5'];
  const outputs = await Promise.all([
    run('ping', ...count, '10.77.0.2'),
    run('ping', ...count, '-s', '20000', '10.77.0.3'),
    run('ping', ...count, '-6', 'fd77::2'),
  ]);
  for (const output of outputs) assert.match(output, /3 received, 0% packet loss/);
  const stats = echo.stats();
  assert.equal(stats.icmp6, 3);
  assert.equal(stats.icmp! >= 6, true);
  assert.deepEqual([stats.badChecksum, stats.refused, tap.stats().badHeaders, tap.stats().refused], [0, 0, 0, 0]);
});

test('a VLAN interface of the kernel reaches an access port untagged', async (t) => {
  const why = obstacle('ip', 'ping');
  if (why) return t.skip(why);
  const m = machine(t);
  m.plug(new TapUplink({ ...m.parts, number: 1, interfaceName: 'vs0' }));
  const echo = m.plug(new EchoUplink({ ...m.parts, number: 2 }));
  echo.vlan = { mode: 'access', vlan: 42 };
  ip('link', 'set', 'vs0', 'up');
  try {
    ip('link', 'add', 'link', 'vs0', 'name', 'vs0.42', 'type', 'vlan', 'id', '42');
  } catch {
    return t.skip('the kernel has no VLAN interfaces');
  }
  ip('address', 'add', '10.77.1.1/24', 'dev', 'vs0.42');
  ip('link', 'set', 'vs0.42', 'up');
  assert.match(await run('ping', '-c', '2', '-i', '0.01', '-W', '5', '10.77.1.2'), /2 received/);
  assert.equal(m.vswitch.table().find((s) => s.vlan === 42)?.portName, 'vs0');
});

test('TCP between two namespaces: every byte arrives, large packets pass whole', async (t) => {
  const why = obstacle('ip');
  if (why) return t.skip(why);
  const m = machine(t);
  const side = (number: number, name: string, address: string) => {
    const tap = m.plug(new TapUplink({ ...m.parts, number, interfaceName: name }));
    ip('address', 'add', address, 'dev', name);
    ip('link', 'set', name, 'up');
    return tap;
  };
  const a = side(1, 'vsa', '10.78.0.1/24');
  const hash = createHash('sha256');
  let bytes = 0;
  const server = createServer((socket) => {
    socket.on('data', (chunk) => {
      hash.update(chunk);
      bytes += chunk.length;
    });
    socket.on('end', () => socket.end(hash.digest('hex')));
  });
  t.after(() => server.close());
  server.listen(5001); // in this namespace, for good
  unshareNetwork();
  side(2, 'vsb', '10.78.0.2/24');

  const data = Buffer.alloc(4 << 20);
  for (let i = 0; i < data.length; i += 4) data.writeUInt32LE(Math.imul(i, 2654435761) >>> 0, i);
  const answer = await new Promise<string>((resolve, reject) => {
    const socket = connect({ host: '10.78.0.1', port: 5001, allowHalfOpen: true });
    t.after(() => socket.destroy());
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('end', () => resolve(text));
    socket.on('error', reject);
    socket.end(data);
  });
  assert.equal(answer, createHash('sha256').update(data).digest('hex'));
  assert.equal(bytes, data.length);
  const { outBytes, outFrames, outDropTooLong } = m.vswitch.portCounters(a);
  assert.equal(outDropTooLong, 0);
  assert.equal(outBytes / outFrames > 1514, true, `${outBytes} bytes in ${outFrames} frames: nothing passed whole`);
});

test('an interface name that cannot be is refused by name', () => {
  const arena = Arena.create({ bytes: 2 << 20 });
  const datapath = createDatapath(arena.memory);
  const sink = new VirtualSwitch({ arena, datapath });
  const open = () => new TapUplink({ arena, datapath, sink, number: 1, interfaceName: 'a/b' });
  assert.throws(open, /TAP name "a\/b"/);
});
