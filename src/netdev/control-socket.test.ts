import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { NetdevError } from './control.js';
import { ControlClient, findControl, listControls } from './control-client.js';
import { controlPath } from './control-path.js';
import { REQUEST_MAX_BYTES } from './control-protocol.js';
import { type ControlOwner, ControlServer, type ControlServerOptions, removeDeadSockets } from './control-server.js';
import { MemoryNetdev } from './control-testing.js';

let runDirectory: string;
let undo: (() => unknown)[];

beforeEach(() => {
  runDirectory = mkdtempSync(path.join(tmpdir(), 'netvsc-control-'));
  chmodSync(runDirectory, 0o700);
  undo = [() => rmSync(runDirectory, { recursive: true, force: true })];
});

afterEach(async () => {
  for (const step of undo.reverse()) await step();
});

interface Running {
  readonly server: ControlServer;
  readonly control: MemoryNetdev;
  /** What `info` says; a test may rename the interface. */
  readonly names: { interface: string; network: string };
  readonly downs: number[];
}

async function start(name = 'hv0', network = '1', options: ControlServerOptions = {}): Promise<Running> {
  const control = new MemoryNetdev(name);
  const names = { interface: name, network };
  const downs: number[] = [];
  const owner: ControlOwner = {
    control,
    info: () => ({ ...names, pid: process.pid, device: 'memory' }),
    metrics: () => 'netvsc_up 1\n',
    down: () => {
      downs.push(downs.length);
      void server.close();
    },
  };
  const server = await ControlServer.start(owner, { runDirectory, ...options });
  undo.push(() => server.close());
  return { server, control, names, downs };
}

async function find(name = 'hv0', network = '1'): Promise<ControlClient> {
  const client = await findControl(name, { network, runDirectory });
  undo.push(() => client.close());
  return client;
}

/** A connection that sends what it likes. */
async function raw(server: ControlServer): Promise<{ socket: Socket; all: Promise<string> }> {
  const socket = connect(server.path);
  undo.push(() => socket.destroy());
  await new Promise((resolve) => socket.once('connect', resolve));
  let text = '';
  socket.on('data', (data) => {
    text += data.toString();
  });
  const all = new Promise<string>((resolve) => socket.once('close', () => resolve(text)));
  return { socket, all };
}

const rejectsWith = (code: string, message?: RegExp) => (error: unknown) => {
  assert.ok(error instanceof NetdevError, String(error));
  assert.equal(error.code, code);
  if (message) assert.match(error.message, message);
  return true;
};

test('every question of NetdevControl goes through the socket and comes back as it was', async () => {
  const { control } = await start();
  const remote = (await find()).remote();
  assert.deepEqual(await remote.driverInfo(), control.driverInfo());
  assert.deepEqual(await remote.link(), control.link());
  assert.deepEqual(await remote.features(), control.features());
  assert.deepEqual(await remote.channels(), control.channels());
  assert.deepEqual(await remote.rings(), control.rings());
  assert.deepEqual(await remote.rss(), control.rss());
  assert.deepEqual(await remote.flowHash('udp4'), control.flowHash('udp4'));
  assert.deepEqual(await remote.coalescing(), control.coalescing());
  assert.equal(await remote.pause(), undefined);
  assert.deepEqual(await remote.registers(), control.registers());
  assert.equal(await remote.permanentAddress(), control.permanentAddress());
  assert.deepEqual(await remote.statistics(), control.statistics());
});

test('every setter arrives with its arguments', async () => {
  const { control } = await start();
  const remote = (await find()).remote();
  await remote.setFeatures({ 'rx-lro': false });
  await remote.setChannels(2);
  await remote.setRings({ rx: 100 });
  await remote.setRss({ key: Array.from({ length: 40 }, () => 7) });
  await remote.setFlowHash('udp4', 'L3');
  await remote.setCoalescing({ rxUsecs: 50 });
  assert.deepEqual(control.calls, [
    ['setFeatures', { 'rx-lro': false }],
    ['setChannels', 2],
    ['setRings', { rx: 100 }],
    ['setRss', { key: Array.from({ length: 40 }, () => 7) }],
    ['setFlowHash', { flow: 'udp4', level: 'L3' }],
    ['setCoalescing', { rxUsecs: 50 }],
  ]);
});

test('a refusal keeps its code and its words', async () => {
  await start();
  const remote = (await find()).remote();
  await assert.rejects(remote.setChannels(99), rejectsWith('EINVAL', /^hv0: channels: expected 1 to 8, got 99$/));
  assert.deepEqual(await remote.channels(), { maxCombined: 8, combined: 4 });
});

test('only the owner may use the socket', async () => {
  const { server } = await start();
  assert.equal(statSync(server.path).mode & 0o777, 0o600);
});

test('metrics and info are answered while a change is under way; further changes wait for their turn', async () => {
  const { control } = await start();
  let release = () => {};
  control.delay = new Promise((resolve) => {
    release = resolve;
  });
  const [one, two, three] = [await find(), await find(), await find()];
  const first = one.remote().setChannels(2);
  const second = two.remote().setChannels(3);
  assert.equal(await three.request('metrics', undefined), 'netvsc_up 1\n');
  assert.equal((await three.request('info', undefined)).interface, 'hv0');
  assert.deepEqual(control.calls, [['setChannels', 2]]);
  release();
  await Promise.all([first, second]);
  assert.equal(control.channels().combined, 3);
});

test('a change that takes too long is reported, and those behind it are not done later', async () => {
  const { control } = await start('hv0', '1', { operationMs: 50 });
  let release = () => {};
  control.delay = new Promise((resolve) => {
    release = resolve;
  });
  const [one, two] = [await find(), await find()];
  const first = one.remote().setChannels(2);
  const second = two.remote().setRings({ rx: 100 });
  await assert.rejects(first, rejectsWith('ETIMEDOUT', /setChannels is still under way/));
  await assert.rejects(second, rejectsWith('EBUSY', /setRings: .*setChannels is still under way/));
  release();
  assert.equal((await one.remote().channels()).combined, 2);
  assert.equal(control.rings().rx, 9709);
});

test('same name in two namespaces: each finds its own', async () => {
  await start('hv0', '1');
  const other = await start('hv0', '2');
  await (await find('hv0', '2')).remote().setChannels(7);
  assert.equal(other.control.channels().combined, 7);
  assert.equal((await (await find('hv0', '1')).remote().channels()).combined, 4);
  assert.deepEqual(
    (await listControls({ runDirectory })).map(({ network }) => network),
    ['1', '2'],
  );
  const third = findControl('hv0', { network: '3', runDirectory });
  await assert.rejects(third, rejectsWith('ENODEV', /in this network namespace; there is one in another: .*--netns/));
});

test('a renamed or moved interface is found by its new name, and not by the old', async () => {
  const { names } = await start();
  names.interface = 'wan';
  names.network = '5';
  assert.equal((await (await find('wan', '5')).remote().channels()).combined, 4);
  await assert.rejects(findControl('hv0', { network: '1', runDirectory }), rejectsWith('ENODEV'));
});

test('no run directory, no socket, a dead socket: ENODEV', async () => {
  const none = { network: '1', runDirectory: path.join(runDirectory, 'none') };
  await assert.rejects(findControl('hv0', none), rejectsWith('ENODEV', /hv0: .* in this network namespace$/));
  assert.deepEqual(await listControls(none), []);
  const { server } = await start();
  const left = `${server.path}.left`;
  renameSync(server.path, left);
  await server.close();
  renameSync(left, server.path);
  await assert.rejects(findControl('hv0', { network: '1', runDirectory }), rejectsWith('ENODEV'));
  // What a killed process left does not keep the next one from its name.
  const again = await start();
  assert.equal(again.server.path, server.path);
});

test('sockets of killed processes are removed, live ones and new ones stay', async () => {
  const { server } = await start('dead', '1');
  const left = `${server.path}.left`;
  renameSync(server.path, left);
  await server.close();
  renameSync(left, server.path);
  const { server: live } = await start('live', '1');
  await removeDeadSockets(runDirectory);
  assert.equal(existsSync(server.path), true, 'it may be about to listen');
  const old = new Date(Date.now() - 60_000);
  for (const at of [server.path, live.path]) utimesSync(at, old, old);
  await removeDeadSockets(runDirectory);
  assert.deepEqual([existsSync(server.path), existsSync(live.path)], [false, true]);
});

test('a name is not taken from a live interface', async () => {
  await start();
  await assert.rejects(start(), rejectsWith('EBUSY', /hv0/));
  assert.equal((await (await find()).remote().channels()).combined, 4);
});

test('names that are none are refused', () => {
  for (const name of ['', '.', '..', 'a/b', '../../x', 'sixteen-letters-', 'a b', 'a:b'])
    assert.throws(() => controlPath(name, '1', runDirectory), rejectsWith('EINVAL'), name);
  assert.throws(() => controlPath('hv0', '1', `/tmp/${'x'.repeat(100)}`), /107 bytes/);
});

test('down: the reply comes, then the connection ends and the socket is gone', async () => {
  const { downs, server } = await start();
  const client = await find();
  await client.request('down', undefined);
  await client.ended(10_000);
  assert.deepEqual(downs, [0]);
  await server.close();
  assert.equal(existsSync(server.path), false);
  await assert.rejects(client.remote().channels(), rejectsWith('ENODEV'));
});

test('an interface that goes away in the middle of a request is an error of the request', async () => {
  const { server, control } = await start();
  control.delay = new Promise(() => {});
  const client = await find();
  const pending = client.remote().setChannels(2);
  const expected = assert.rejects(pending, rejectsWith('ENODEV', /went away/));
  await (await find()).request('info', undefined);
  await server.close();
  await expected;
});

test('a server that does not answer is given up', async () => {
  const mute = createServer((socket) => socket.on('error', () => {}).resume());
  const at = path.join(runDirectory, 'netdev-1-hv0');
  await new Promise<void>((resolve) => mute.listen(at, resolve));
  const client = await ControlClient.open(at, 50);
  undo.push(
    () => new Promise((resolve) => mute.close(resolve)),
    () => client.close(),
  );
  await assert.rejects(client.remote().channels(), rejectsWith('ETIMEDOUT', /channels: no reply within 50 ms/));
  await assert.rejects(findControl('hv0', { network: '1', runDirectory, timeoutMs: 50 }), rejectsWith('ENODEV'));
});

test('a server that answers nonsense, or without end, is an error and no crash', async () => {
  const replies = ['{"id":1}\n{', '[]\n', 'x\n', '{"id":9,"result":null}\n', `${'x'.repeat(5 * 1024 * 1024)}`];
  for (const [index, reply] of replies.entries()) {
    const at = path.join(runDirectory, `netdev-1-nonsense${index}`);
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => socket.end(reply));
    });
    await new Promise<void>((resolve) => server.listen(at, resolve));
    const client = await ControlClient.open(at, 20_000);
    await assert.rejects(client.remote().channels(), /channels|reply|line|replies/);
    client.close();
    await new Promise((resolve) => server.close(resolve));
  }
});

test('the client of a client that sends nonsense hears why, and the next line is heard', async () => {
  const { server } = await start();
  const { socket, all } = await raw(server);
  socket.end(
    'hello\n{"id":7,"op":"explode"}\n{"id":8,"op":"setChannels","args":{"combined":"4"}}\n{"id":9,"op":"link"}\n',
  );
  const replies = (await all)
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    replies.map(({ id, error }) => [id, error?.code]),
    [
      [0, 'EINVAL'],
      [7, 'EINVAL'],
      [8, 'EINVAL'],
      [9, undefined],
    ],
  );
  assert.match(replies[2].error.message, /setChannels\.args\.combined: expected a whole number .* got "4"/);
});

test('a line without end, and too many requests at once, end the connection with the reason', async () => {
  const { server } = await start();
  const long = await raw(server);
  long.socket.write('x'.repeat(REQUEST_MAX_BYTES + 1));
  assert.match(await long.all, /at most 65536 bytes/);
  const many = await raw(server);
  many.socket.write('{"id":1,"op":"link"}\n'.repeat(1000));
  assert.match(await many.all, /at most 16 requests at once/);
  assert.equal((await (await find()).remote().channels()).combined, 4);
});

test('a client that begins a line and leaves it is let go', async () => {
  const { server } = await start('hv0', '1', { idleMs: 50 });
  const { socket, all } = await raw(server);
  socket.write('{"id":');
  assert.equal(await all, '');
});

test('a client that does not read its replies costs the server one of them, and is let go', async () => {
  const { server, control } = await start('hv0', '1', { idleMs: 200 });
  control.counters = Array.from({ length: 20_000 }, (_, index) => [`counter_with_a_long_name_${index}`, index]);
  const { socket, all } = await raw(server);
  socket.pause();
  socket.write('{"id":1,"op":"statistics"}\n'.repeat(10));
  // The server destroys the connection: what it had not sent is lost.
  await new Promise((resolve) => setTimeout(resolve, 1000));
  socket.resume();
  assert.ok((await all).split('\n').length < 10);
});

test('clients beyond the limit are turned away, the others stay', async () => {
  await start('hv0', '1', { maxClients: 2 });
  const [one, two] = [await find(), await find()];
  await assert.rejects(findControl('hv0', { network: '1', runDirectory }), rejectsWith('ENODEV'));
  assert.equal((await one.remote().channels()).combined, 4);
  assert.equal((await two.remote().channels()).combined, 4);
});

test('sockets of processes that were killed are cleared away, young ones and other files are not', async () => {
  const old = new Date(Date.now() - 3_600_000);
  const leave = async (name: string, aged: boolean) => {
    const { server } = await start(name);
    renameSync(server.path, `${server.path}.left`);
    await server.close();
    renameSync(`${server.path}.left`, server.path);
    if (aged) utimesSync(server.path, old, old);
    return server.path;
  };
  const [aged, young] = [await leave('aged', true), await leave('young', false)];
  const live = await start('live');
  utimesSync(live.server.path, old, old);
  const file = path.join(runDirectory, 'netdev-1-file');
  writeFileSync(file, '');
  utimesSync(file, old, old);
  await start('next');
  assert.deepEqual([aged, young, live.server.path, file].map(existsSync), [false, true, true, true]);
});

test('other files of the run directory are none of its business', async () => {
  writeFileSync(path.join(runDirectory, 'netdev-x'), '');
  writeFileSync(path.join(runDirectory, 'm.ring'), '');
  await start();
  assert.equal((await listControls({ runDirectory })).length, 1);
});
