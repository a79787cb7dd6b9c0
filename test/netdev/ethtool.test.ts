// `netvsc ethtool` against interfaces on hosts of several kinds: what is granted is there afterwards, what a host refuses
// is refused with its reason, and the interface goes on either way.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { HostProcess, Place, skipReason, twoPlaces, UpProcess } from './rig.js';

const skip = skipReason();

interface Interface {
  readonly place: Place;
  readonly host: HostProcess;
  /** What ethtool says, and its exit code. */
  ask(...words: string[]): Promise<{ said: string; code: number | string | null }>;
  /** It must succeed, and say this. */
  shows(words: string, expected: RegExp): Promise<void>;
  /** It must fail with this code, and say this. */
  refuses(words: string, code: number, expected: RegExp): Promise<void>;
}

function interfaceAt(place: Place, host: HostProcess): Interface {
  const ask = (...words: string[]) => place.netvsc('ethtool', ...words);
  return {
    ...{ place, host, ask },
    shows: async (words, expected) => {
      const { said, code } = await ask(...words.split(' '));
      assert.match(said, expected, words);
      assert.equal(code, 0, `${words}: ${said}`);
    },
    refuses: async (words, expectedCode, expected) => {
      const { said, code } = await ask(...words.split(' '));
      assert.match(said, expected, words);
      assert.equal(code, expectedCode, `${words}: ${said}`);
    },
  };
}

async function interfaceOn(t: TestContext, profile: string, ...words: string[]): Promise<Interface> {
  const host = await HostProcess.start(t, profile);
  const place = new Place(t, 1);
  await new UpProcess(place, 'hv0', ['--machine', host.machine, ...words]).ready();
  return interfaceAt(place, host);
}

test('Windows Server 2022: everything that is asked for is done, and packets go on', { skip }, async (t) => {
  const host = await HostProcess.start(t, 'ws2022');
  const [place, other] = await twoPlaces(t, host, '--queues', '2');
  const { shows, refuses, ask } = interfaceAt(place, host);
  const reachable = async () => assert.ok((await place.ping(other.address)) >= 3);

  await shows('-i hv0', new RegExp(`^driver: net_netvsc\n[\\s\\S]*bus-info: ${host.nics[0]!.uuid}\n`));
  await shows('-P hv0', new RegExp(`^Permanent address: ${host.nics[0]!.mac}\n$`));
  await shows('hv0', /Speed: \d+Mb\/s\n\tDuplex: Full\n[\s\S]*Link detected: yes\n$/);

  await shows('-L hv0 combined 4', /^$/);
  await shows('-l hv0', /Current[\s\S]*Combined:\t4\n$/);
  await shows('-x hv0', /with 4 RX ring\(s\):\n {4}0: {6}0 {5}1 {5}2 {5}3 /);
  await reachable();
  await refuses('-L hv0 combined 65', 1, /^netlink error: requested channel count exceeds maximum \(offset 32\)\n/);
  await refuses('-L hv0 combined 0', 1, /no RX or TX channel being configured \(offset 32\)\n/);

  // What a user set stays over a new attach; a table holds its channels.
  const key = Array.from({ length: 40 }, (_, index) => (index + 1).toString(16).padStart(2, '0')).join(':');
  await shows(`-X hv0 hkey ${key} equal 1 start 3`, /^$/);
  await refuses('-L hv0 combined 2', 1, /^netlink error: hv0: .*queue 3.*\nnetlink error: Invalid argument\n$/);
  await refuses(
    '-X hv0 equal 5',
    1,
    /^Cannot set RX flow hash configuration: Invalid argument\nnetvsc: hv0: .*got 4\n$/,
  );
  await shows('-K hv0 gro off lro off', /^$/);
  await shows('-N hv0 rx-flow-hash udp4 sd', /^$/);
  await shows('-G hv0 rx 1000 tx 100', /^$/);
  await shows('-g hv0', /Current hardware settings:\nRX:\t\t1000\n[\s\S]*TX:\t\t100\n/);
  await shows('-x hv0', new RegExp(` {4}0: {6}3 {5}3 [\\s\\S]*RSS hash key:\n${key}\n`));
  await shows('-k hv0', /generic-receive-offload: off\nlarge-receive-offload: off\n/);
  await shows(
    '-n hv0 rx-flow-hash udp4',
    /^UDP over IPV4 flows use .*\nIP SA\nIP DA\n\nnetvsc: hv0: sent and received packets are hashed so\n$/,
  );
  await shows('-n hv0 rx-flow-hash tcp4', /IP DA\nL4 bytes 0 & 1 \[TCP\/UDP src port\]\n/);
  await reachable();

  // The default is nobody's wish: it does not hold channels.
  await shows('-X hv0 default', /^$/);
  await shows('-L hv0 combined 2', /^$/);
  await shows('-x hv0', new RegExp(`with 2 RX[\\s\\S]* {4}0: {6}0 {5}1 {5}0 [\\s\\S]*${key}\n`));

  // The smallest buffers that Linux has.
  await shows('-G hv0 rx 1 tx 1', /^$/);
  await shows('-g hv0', /Current hardware settings:\nRX:\t\t1\d\n/);
  await reachable();
  await refuses('-G hv0 rx 100000', 81, /^netlink error: requested ring size exceeds maximum \(offset 32\)\n/);

  await shows(
    '-K hv0 sg off',
    /^Actual changes:\ntx-scatter-gather: off\ntx-generic-segmentation: off \[not requested\]\n/,
  );
  await reachable();
  await shows('-K hv0 sg on lro on', /tx-generic-segmentation: on \[not requested\]\n/);
  await refuses(
    '-K hv0 ntuple on',
    1,
    /rx-ntuple-filter: off \[requested on\]\nCould not change any device features\n$/,
  );
  await refuses('-a hv0', 1, /^netlink error: Operation not supported\n$/);

  // Counters are those that `ip` shows.
  const counters = (await ask('-S', 'hv0')).said;
  assert.match(counters, /^NIC statistics:\n {5}tx_scattered: 0\n/);
  assert.ok(Number(/ tx_queue_0_packets: (\d+)/.exec(counters)?.[1]) > 0);
});

test('Windows Server 2012 R2 and 2016: no coalescing, with the reason', { skip }, async (t) => {
  for (const profile of ['ws2012r2', 'ws2016']) {
    const { shows, refuses } = await interfaceOn(t, profile);
    await shows('-k hv0', /\nlarge-receive-offload: off \[requested on\]\n/);
    await refuses(
      '-K hv0 lro on',
      1,
      /^(?=[\s\S]*rx-lro: off \[requested on\]\n)(?=[\s\S]*netvsc: rx-lro: .*Windows Server 2019.*\n)[\s\S]*Could not change any device features\n/,
    );
    await shows('-K hv0 lro off', /^$/);
    await shows('-L hv0 combined 4', /^$/);
  }
});

test('Windows Server 2012: one channel, and no table', { skip }, async (t) => {
  const { shows, refuses } = await interfaceOn(t, 'ws2012');
  await shows('-l hv0', /Pre-set[\s\S]*Combined:\t1\n[\s\S]*Combined:\t1\n$/);
  await refuses('-L hv0 combined 2', 1, /requested channel count exceeds maximum/);
  await refuses('-x hv0', 1, /^Cannot get RX flow hash indirection table size: Operation not supported\nnetvsc: hv0: /);
  await refuses('-X hv0 equal 1', 1, /Operation not supported\n/);
  await refuses('-K hv0 lro on', 1, /netvsc: rx-lro: receive coalescing came with Windows Server 2019/);
});

test('the same name in two namespaces, and an interface under another name', { skip }, async (t) => {
  const host = await HostProcess.start(t);
  const [here, there] = await twoPlaces(t, host);
  const [mine, other] = [interfaceAt(here, host), interfaceAt(there, host)];
  await mine.shows('-L hv0 combined 3', /^$/);
  await mine.shows('-l hv0', /Combined:\t3\n$/);
  await other.shows('-l hv0', /Current[\s\S]*Combined:\t[^3]\n$/);
  await mine.shows(`--netns ${there.path} -i hv0`, new RegExp(`bus-info: ${host.nics[1]!.uuid}\n`));
  await here.ip('link set hv0 name wan');
  await mine.shows('-l wan', /Combined:\t3\n$/);
  await mine.refuses('-l hv0', 1, /no device matches name/);
});
