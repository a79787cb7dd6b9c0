// The guest app in each of its modes, host and guests in processes of their own.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync } from 'node:fs';
import { test } from 'node:test';
import { createNetwork, inNetwork } from '../../src/memory/os/netns.js';
import { noTapReason } from '../../src/memory/os/tap-testing.js';
import { machineName, Peer, startGuest, startHost } from './processes.js';

test('one guest answers what the other sends, over the switch', async (t) => {
  const machine = machineName();
  const host = startHost(t, machine);
  await host.line('ready');
  const echo = startGuest(t, machine, { nic: 1, traffic: { mode: 'echo', address: '10.0.0.3' } });
  const { uuid } = await echo.line('attached');
  const sender = startGuest(t, machine, {
    traffic: { mode: 'generate', address: '10.0.0.2', target: '10.0.0.3', frameBytes: 1514, rate: 2000 },
  });
  await sender.stats(({ received }) => received! > 500);
  const busy = startGuest(t, machine, { nic: String(uuid), traffic: { mode: 'sink', address: '10.0.0.4' } });
  assert.match(String((await busy.line('error')).message), /in use: another guest has the channel open/);
  const { stats: sent } = (await sender.end()) as unknown as { stats: Record<string, number> };
  const { stats: answered } = (await echo.end()) as unknown as { stats: Record<string, number> };
  for (const stats of [sent, answered]) {
    assert.deepEqual([stats.txFailed, stats.rxBadRndis, stats.noBuffer, stats.failures], [0, 0, 0, 0]);
  }
  // What was on its way when the sender ended is all that may be missing.
  assert.ok(answered.sent! >= sent.received!, `${answered.sent} answers, ${sent.received} of them came`);
  assert.ok(sent.sent! - sent.received! <= 256, `${sent.sent} sent, ${sent.received} came back`);
  assert.ok(sent.received! * 1514 <= sent.receivedBytes! + 1514, 'whole frames came back');
});

test('with several queues: answers go out where questions came in, every queue sends', async (t) => {
  const machine = machineName();
  await startHost(t, machine).line('ready');
  const echo = startGuest(t, machine, { nic: 1, queues: 4, traffic: { mode: 'echo', address: '10.0.0.3' } });
  const { info } = (await echo.line('attached')) as unknown as { info: { queues: number } };
  assert.equal(info.queues, 4);
  const sender = startGuest(t, machine, {
    traffic: { mode: 'generate', address: '10.0.0.2', target: '10.0.0.3', frameBytes: 1514, rate: 4000 },
    queues: 3,
  });
  await sender.stats(({ received }) => received! > 1000);
  const { stats: sent } = (await sender.end()) as unknown as { stats: Record<string, number> };
  const { stats: answered } = (await echo.end()) as unknown as { stats: Record<string, number> };
  for (const stats of [sent, answered]) {
    assert.deepEqual([stats.txFailed, stats.rxBadRndis, stats.noBuffer, stats.failures], [0, 0, 0, 0]);
    assert.ok(stats.rxHash! > 900, 'the host spreads what it delivers');
  }
  assert.ok(sent.sent! - sent.received! <= 3 * 256, `${sent.sent} sent, ${sent.received} came back`);
});

test('a guest ends by itself after its time; a sink only counts', async (t) => {
  const machine = machineName();
  const host = startHost(t, machine);
  await host.line('ready');
  const sink = startGuest(t, machine, { traffic: { mode: 'sink', address: '10.0.0.2' }, seconds: 2 });
  const { stats } = (await sink.line('ended')) as unknown as { stats: Record<string, number> };
  assert.deepEqual([stats.sent, stats.attaches], [0, 1]);
  const waiting = startGuest(t, machineName(), { reattach: true, seconds: 0.1 });
  assert.deepEqual(await waiting.line('ended'), { type: 'ended', stats: {} });
});

test('a guest that waits for a host that hangs can be ended', async (t) => {
  const machine = machineName();
  const host = startHost(t, machine);
  await host.line('ready');
  process.kill(host.pid, 'SIGSTOP');
  const guest = startGuest(t, machine, { seconds: 0.2 });
  // Without an answer attach fails, and says so, after five seconds.
  assert.deepEqual(await guest.line('ended'), { type: 'ended', stats: {} });
});

test('a TAP interface on a machine of another process; it loses its carrier with the host', {
  skip: noTapReason() || noTools(),
}, async (t) => {
  const machine = machineName();
  const network = createNetwork();
  t.after(() => closeSync(network));
  const inside = <T>(action: () => T): T => inNetwork(`/proc/self/fd/${network}`, action);
  const ip = (...words: string[]) => {
    const { status, stdout, stderr } = inside(() => spawnSync('ip', words, { encoding: 'utf8' }));
    assert.equal(status, 0, `ip ${words.join(' ')}: ${stderr}`);
    return stdout;
  };
  const ping = () => {
    const words = ['-c', '5', '-i', '0.05', '-W', '2', '-s', '1400', '10.0.0.1'];
    const { status, stdout } = inside(() => spawnSync('ping', words, { encoding: 'utf8' }));
    assert.equal(status, 0, stdout);
    assert.match(stdout, / 0% packet loss/);
  };
  let host = startHost(t, machine);
  await host.line('ready');
  const guest = inside(
    () => new Peer(t, 'guest', { machine, nic: 0, traffic: { mode: 'tap', tap: 'vnet0' }, reattach: true }),
  );
  await guest.line('attached');
  ip('address', 'add', '10.0.0.2/24', 'dev', 'vnet0');
  ip('link', 'set', 'vnet0', 'up');
  ping();
  const since = guest.lines.length;
  await host.kill();
  await guest.line('gone');
  await until(() => ip('link', 'show', 'vnet0').includes('NO-CARRIER'));
  host = startHost(t, machine);
  await guest.line('attached', () => true, since);
  await until(() => !ip('link', 'show', 'vnet0').includes('NO-CARRIER'));
  ping();
  const { stats } = (await guest.end()) as unknown as { stats: Record<string, number> };
  assert.deepEqual([stats.tapWriteErrors, stats.badVnetHeaders, stats.badPackets, stats.txFailed], [0, 0, 0, 0]);
  await host.end();
});

function noTools(): string | false {
  const missing = ['ip', 'ping'].filter((tool) => spawnSync(tool, ['-V']).error);
  return missing.length > 0 && `not installed: ${missing.join(', ')}`;
}

async function until(done: () => boolean): Promise<void> {
  const began = performance.now();
  while (!done()) {
    assert.ok(performance.now() - began < 10_000, 'it never came to that');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
