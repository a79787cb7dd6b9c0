// An interface's life: it follows what happens on both sides, and leaves nothing behind.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openRunDirectory } from '../../src/memory/rundir.js';
import { bringUp, cli, HostProcess, Place, skipReason, twoPlaces, UpProcess } from './rig.js';

const skip = skipReason();
const ours = (place: Place) => readdirSync(openRunDirectory()).filter((name) => name.includes(place.network));

test('carrier, MTU, address and promiscuity follow each other both ways', { skip }, async (t) => {
  const host = await HostProcess.start(t);
  const [here, there] = await twoPlaces(t, host);
  assert.ok((await here.ping(there.address)) >= 3);
  const control = await here.control(t);
  assert.deepEqual(await control.driverInfo().then(({ driver, busInfo }) => ({ driver, busInfo })), {
    ...{ driver: 'net_netvsc', busInfo: host.nics[0]!.uuid },
  });

  await host.ask({ do: 'link', nic: 0, up: false });
  await here.untilLink('no carrier', ({ operstate }) => operstate === 'DOWN');
  assert.equal((await control.link()).up, false);
  await host.ask({ do: 'link', nic: 0, up: true });
  await here.untilLink('a carrier', ({ operstate }) => operstate === 'UP');
  await here.until('the control thread sees it', async () => (await control.link()).up);
  assert.ok((await here.ping(there.address)) >= 3);

  const mac = '02:00:00:aa:bb:cc';
  await here.ip(`link set hv0 address ${mac}`);
  await there.ip('neigh flush all');
  await here.until('packets for the new address', async () => (await there.ping(here.address, 56, 1)) > 0);
  assert.equal(await control.permanentAddress(), host.nics[0]!.mac);

  await here.ip('link set hv0 promisc on');
  await here.ip('link set hv0 promisc off');
  await here.ip('link set hv0 down');
  await here.untilLink('down', ({ operstate }) => operstate === 'DOWN');
  await here.ip('link set hv0 up');
  await here.untilLink('up', ({ operstate }) => operstate === 'UP');
  await here.until('packets after down and up', async () => (await here.ping(there.address, 56, 1)) > 0);

  // The host takes no frames of that size.
  await here.ip('link set hv0 mtu 20000');
  await here.untilLink('the old MTU', ({ mtu }) => mtu === 1500);
  assert.match(here.up!.said, /hv0: MTU 20000: .*it stays 1500/);
  assert.ok((await here.ping(there.address, 1472)) >= 3);
});

test('the host is killed: without --wait the end, with the reason; with it the interface goes on with the next', {
  skip,
}, async (t) => {
  const host = await HostProcess.start(t);
  const [here, there] = [new Place(t, 1), new Place(t, 2)];
  await Promise.all([bringUp(here, host, 0, '--wait', '--queues', '2'), bringUp(there, host, 1)]);
  assert.ok((await here.ping(there.address)) >= 3);
  await here.ip('link set hv0 mtu 4000');
  await host.kill();
  assert.equal(await there.up!.exit, 1);
  assert.match(there.up!.said, /the host is gone/);
  assert.equal(await there.hasLink(), false);
  await here.untilLink('no carrier', ({ operstate }) => operstate === 'DOWN');
  assert.ok(here.up!.alive);
  await host.restart();
  await here.untilLink('a carrier', ({ operstate }) => operstate === 'UP');
  await bringUp(there, host, 1, '--mtu', '4000');
  await here.until('packets', async () => (await here.ping(there.address, 3900, 1)) > 0);
  assert.equal((await here.link()).mtu, 4000);
  assert.match(here.up!.said, /the device is back/);
  assert.equal(await here.up!.end(), 143);
  assert.deepEqual(
    [...ours(here), ...ours(there)].filter((name) => !name.startsWith('netdev-')),
    [],
  );
});

test('the device is withdrawn; the interface is removed under us: an end with the reason', { skip }, async (t) => {
  const host = await HostProcess.start(t);
  const [here, there] = await twoPlaces(t, host);
  await host.ask({ do: 'rescind', nic: 0 });
  assert.equal(await here.up!.exit, 1);
  assert.match(here.up!.said, /netvsc: .*(rescinded|gone)/);
  assert.equal(await here.hasLink(), false);
  await there.ip('link delete hv0');
  assert.equal(await there.up!.exit, 1);
  assert.match(there.up!.said, /interface hv0 was removed/);
  assert.deepEqual([...ours(here), ...ours(there)], []);
});

test('a daemon: there when its starter ends, files for its user alone, taken down without a trace', {
  skip,
}, async (t) => {
  const host = await HostProcess.start(t);
  const place = new Place(t, 1);
  const words = ['--machine', host.machine, '--netns', place.path];
  const started = await place.netvsc('up', 'hv0', ...words, '--daemon', '--json', '--metrics', '127.0.0.1:0');
  assert.equal(started.code, 0, started.said);
  const ready = JSON.parse(started.said) as { pid: number; metrics: number };
  t.after(() => {
    try {
      process.kill(ready.pid, 'SIGKILL');
    } catch {
      // taken down already
    }
  });
  await place.untilLink('a carrier', ({ operstate }) => operstate === 'UP');
  const files = ours(place);
  assert.deepEqual(files.sort(), [
    `hv0.${place.network}.log`,
    `hv0.${place.network}.pid`,
    `netdev-${place.network}-hv0`,
  ]);
  for (const file of files) assert.equal(statSync(`${openRunDirectory()}/${file}`).mode & 0o077, 0, file);
  assert.equal(readFileSync(`${openRunDirectory()}/hv0.${place.network}.pid`, 'utf8'), `${ready.pid}\n`);
  const again = await place.netvsc('up', 'hv0', ...words);
  assert.equal(again.code, 1);
  assert.match(again.said, /^netvsc: .*(in use|busy|EBUSY|somebody else)/i);
  assert.equal(again.said.trim().split('\n').length, 1, again.said);
  const down = await place.netvsc('down', 'hv0');
  assert.equal(down.code, 0, down.said);
  assert.equal(await place.hasLink(), false);
  await place.until('the process is gone', async () => !existsSync(`/proc/${ready.pid}`));
  const log = `hv0.${place.network}.log`;
  assert.deepEqual(ours(place), [log]);
  rmSync(`${openRunDirectory()}/${log}`); // another namespace may have this one's number
  const none = await place.netvsc('down', 'hv0');
  assert.equal(none.code, 1);
  assert.match(none.said, /^netvsc: .*hv0/);
});

test('metrics are Prometheus text', { skip }, async (t) => {
  const host = await HostProcess.start(t);
  const place = new Place(t, 1);
  const up = new UpProcess(place, 'hv0', ['--machine', host.machine, '--metrics', '127.0.0.1:0']);
  const { metrics } = await up.ready();
  await place.ip('link set lo up');
  const text = await place.run(
    process.execPath,
    '-e',
    `fetch('http://127.0.0.1:${metrics}/metrics').then((r) => r.text()).then(console.log)`,
  );
  assert.match(text, /^# TYPE netvsc_\w+ \w+$/m);
  assert.match(text, /^netvsc_\w+\{interface="hv0".*\} \d+$/m);
});

test('an idle interface leaves the CPU alone', { skip }, async (t) => {
  const host = await HostProcess.start(t);
  const place = new Place(t, 1);
  await bringUp(place, host, 0);
  await sleep(1500);
  const ticks = () => {
    const fields = readFileSync(`/proc/${place.up!.child.pid}/stat`, 'latin1').split(') ')[1]!.split(' ');
    return Number(fields[11]) + Number(fields[12]);
  };
  const before = ticks();
  const began = performance.now();
  await sleep(4000);
  const share = ((ticks() - before) * 10) / (performance.now() - began);
  assert.ok(share < 0.1, `${(share * 100).toFixed(1)} % of a core while nothing happens`);
});

test('errors are one line each', { skip }, async (t) => {
  const host = await HostProcess.start(t);
  const place = new Place(t, 1);
  const cases: readonly (readonly [words: string[], message: RegExp])[] = [
    [['up', 'hv0', '--machine', 'nobody-is-there'], /no machine at .*nobody-is-there/],
    [['up', 'hv0', '--machine', host.machine, '--device', '7'], /no device 7, there are 2/],
    [['up', 'hv0', '--machine', host.machine, '--netns', 'no-such-one'], /no network namespace at .*no-such-one/],
    [['up', 'lo', '--machine', host.machine], /lo: .*there is one that is no TAP/],
    [['up', 'hv0', '--machine', host.machine, '--mtu', '20000'], /MTU: the host refused 20000, it gave 1500/],
    [['up', 'hv0'], /expected one of --machine, --root or --vdev/],
    [['up', 'no/name', '--machine', host.machine], /1 to 15 bytes/],
  ];
  for (const [words, message] of cases) {
    const { code, said } = await place.netvsc(...words);
    assert.equal(code, 1, said);
    assert.match(said, message);
    assert.equal(said.trim().split('\n').length, 1, said);
  }
});

test('without rights: one line, and no interface', {
  skip: skip || (spawnSync('setpriv', ['--version']).error !== undefined && 'needs setpriv'),
}, async (t) => {
  const place = new Place(t, 1);
  const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all'];
  const words = [...nobody, process.execPath, cli, 'up', 'hv0', '--vdev', 'net_null0'];
  const { code, said } = await place.attempt('setpriv', ...words);
  assert.equal(code, 1, said);
  assert.match(said, /^netvsc: .*hv0: not allowed, it needs CAP_NET_ADMIN and access to \/dev\/net\/tun/);
  assert.equal(said.trim().split('\n').length, 1, said);
});

test('any other port can be an interface', { skip }, async (t) => {
  const place = new Place(t, 1);
  const up = new UpProcess(place, 'any0', ['--vdev', 'net_null0,no_rx=1']);
  const ready = await up.ready();
  assert.equal(ready.device, 'net_null0');
  await place.until('a carrier', async () => (await place.link('any0')).operstate === 'UP');
  assert.equal(await up.end(), 143);
  assert.equal(await place.hasLink('any0'), false);
});
