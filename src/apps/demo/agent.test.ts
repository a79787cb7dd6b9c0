import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { Agent } from './agents.js';
import { environmentObstacle } from './environment.js';
import type { WorkerData } from './protocol.js';

const why = environmentObstacle();
const skip = why ? { skip: why } : {};

let agents: Agent[] = [];
let worker: Worker | undefined;

before(async () => {
  if (why) return;
  agents = await Promise.all([Agent.start('a'), Agent.start('b')]);
  const nics = agents.map((agent, i) => ({ ifname: `nic${i}`, netnsPid: agent.pid }));
  const workerData: WorkerData = { machine: 'test', profile: 'azure', mtu: 1500, nics, uplink: { kind: 'echo' } };
  worker = new Worker(new URL('./testing-hub.js', import.meta.url), { workerData });
  await new Promise((resolve) => worker!.once('message', resolve));
  await Promise.all(
    agents.map((agent, i) =>
      agent.call('configure', {
        ifname: `nic${i}`,
        mac: `00:15:5d:00:00:0${i + 1}`,
        mtu: 1500,
        ipv4: `10.77.0.${i + 1}/24`,
        ipv6: `fd77::${i + 1}/64`,
      }),
    ),
  );
});

after(async () => {
  await worker?.terminate();
  await Promise.all(agents.map((agent) => agent.stop()));
});

for (const [family, address] of [
  [4, '10.77.0.'],
  [6, 'fd77::'],
] as const) {
  test(`IPv${family}: neighbour and ping between two namespaces`, skip, async () => {
    const found = await agents[0]!.call('resolve', { ifname: 'nic0', target: `${address}2` });
    assert.equal(found.mac, '00:15:5d:00:00:02');
    for (const bytes of [56, 8000]) {
      const target = `${address}1`;
      const result = await agents[1]!.call('ping', { target, count: 3, bytes, timeoutMs: 2000 });
      assert.deepEqual([result.sent, result.received, result.wrong], [3, 3, 0], JSON.stringify(result));
      assert.equal(result.minMs > 0 && result.minMs <= result.avgMs && result.avgMs <= result.maxMs, true);
    }
  });

  test(`IPv${family}: TCP, same bytes at both ends`, skip, async () => {
    const address0 = `${address}1`;
    let listening: (port: number) => void;
    const port = new Promise<number>((resolve) => {
      listening = resolve;
    });
    const sending = agents[0]!.call(
      'tcpSend',
      { address: address0, seed: 7, bytes: 10_000_001 },
      { progress: (progress) => progress.port && listening(progress.port) },
    );
    const received = await agents[1]!.call('tcpReceive', { address: address0, port: await port });
    const sent = await sending;
    assert.equal(received.bytes, 10_000_001);
    assert.deepEqual([received.bytes, received.hash], [sent.bytes, sent.hash]);
    const kernel = await agents[1]!.call('kernel', {});
    assert.equal(kernel.TcpInSegs! > 0, true);
  });

  test(`IPv${family}: UDP of all sizes, every datagram checked`, skip, async () => {
    const sizes = [1, 18, 512, 1472, 1473, 9000, 65_507];
    let listening: (port: number) => void;
    const port = new Promise<number>((resolve) => {
      listening = resolve;
    });
    const receiving = agents[1]!.call(
      'udpReceive',
      { address: `${address}2`, seed: 3, sizes },
      { progress: (progress) => progress.port && listening(progress.port) },
    );
    const sent = await agents[0]!.call('udpSend', {
      ...{ address: `${address}2`, port: await port, seed: 3, sizes, datagrams: 150 },
    });
    const verdict = await receiving;
    assert.equal(sent.datagrams, 150);
    assert.deepEqual(verdict, {
      ...{ datagrams: 150, bytes: sent.bytes, lost: 0, wrong: 0, reordered: 0, duplicates: 0 },
    });
  });
}

test('what an agent cannot do is an error that names agent and command', skip, async () => {
  await assert.rejects(
    agents[0]!.call('ping', { target: '203.0.113.1', count: 1, bytes: 56, timeoutMs: 100 }),
    /agent a, ping: .*ENETUNREACH/,
  );
  await assert.rejects(
    agents[0]!.call('ping', { target: '10.77.0.99', count: 100, bytes: 56, timeoutMs: 100 }, { deadlineMs: 50 }),
    /agent a, ping: not done in 50 ms/,
  );
});

test('an agent that dies fails what it was doing', skip, async () => {
  const agent = await Agent.start('mortal');
  const sending = agent.call('tcpSend', { address: '127.0.0.1', seed: 1, bytes: 10 });
  const failed = assert.rejects(sending, /agent mortal, tcpSend: ended \(SIGKILL\)/);
  process.kill(agent.pid, 'SIGKILL');
  await failed;
  await assert.rejects(agent.call('kernel', {}), /ended/);
  await agent.stop();
});
