// What hosts of each Windows release refuse, `netvsc ethtool` refuses with that reason; what they grant is in force.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runEthtool } from '../../src/apps/ethtool/ethtool-testing.js';
import { PROFILE_NAMES, type ProfileName } from '../../src/host/profiles.js';
import { FLOWS } from '../../src/netdev/control.js';
import { bringUp, HostProcess, Place, skipReason, talk } from '../netdev/rig.js';

const skip = skipReason();

/** What differs from host to host; a text is the reason of the refusal. */
interface Expected {
  readonly lro: true | RegExp;
  readonly checksums: true | RegExp;
  readonly verified: true | RegExp;
  /** Its own reason, or that it needs checksums. */
  readonly segmentation: true | RegExp;
  readonly channels: true | RegExp;
  /** Received UDP is spread by ports. */
  readonly udpHash: boolean;
  readonly speedMbps: number;
}

const lroSince = (version: string) =>
  new RegExp(`receive coalescing came with Windows Server 2019 \\(NVSP 6\\.1\\), the host has NVSP ${version}$`);
const channelsSince = (version: string) =>
  new RegExp(`channels came with Windows Server 2012 R2 \\(NVSP 5\\), the host has NVSP ${version}$`);

const MODERN: Expected = {
  ...{
    lro: true,
    checksums: true,
    verified: true,
    segmentation: true,
    channels: true,
    udpHash: true,
    speedMbps: 10_000,
  },
};
const EXPECTED: Readonly<Record<ProfileName, Expected>> = {
  ws2008r2: {
    ...MODERN,
    lro: lroSince('2'),
    checksums: /the host does not offer TCP checksums of both families$/,
    verified: /the host does not offer TCP checksums of both families$/,
    segmentation: /the host does not offer segmentation of both families$/,
    channels: channelsSince('2'),
    udpHash: false,
  },
  ws2012: { ...MODERN, lro: lroSince('4'), channels: channelsSince('4'), udpHash: false },
  ws2012r2: { ...MODERN, lro: lroSince('5'), udpHash: false },
  ws2016: { ...MODERN, lro: lroSince('5'), udpHash: false },
  win10: { ...MODERN, lro: lroSince('6'), udpHash: false },
  ws2019: MODERN,
  ws2022: MODERN,
  azure: { ...MODERN, speedMbps: 50_000 },
};

/** Lines of ours among ethtool's. */
const reasons = (err: string): string[] => err.split('\n').filter((line) => line.startsWith('netvsc: '));

for (const profile of PROFILE_NAMES) {
  const expected = EXPECTED[profile];
  const many = expected.channels === true;
  test(`${profile}: refused and granted in ethtool's words`, { skip }, async (t) => {
    const host = await HostProcess.start(t, profile);
    const [here, there] = [new Place(t, 1), new Place(t, 2)];
    await Promise.all([here, there].map((place, nic) => bringUp(place, host, nic, '--queues', many ? '2' : '1')));
    const remote = await here.control(t);
    const ethtool = (words: string) => runEthtool(remote, ...words.split(' '));
    const done = { out: '', err: '', code: 0 };

    await t.test('-K', async () => {
      const switches: readonly (readonly [word: string, names: readonly string[], granted: true | RegExp])[] = [
        ['lro', ['rx-lro'], expected.lro],
        ['tx', ['tx-checksum-ipv4', 'tx-checksum-ipv6'], expected.checksums],
        ['tso', ['tx-tcp-segmentation', 'tx-tcp6-segmentation'], expected.segmentation],
        ['rx', ['rx-checksum'], expected.verified],
        ['gro', ['rx-gro'], true],
        ['sg', ['tx-scatter-gather'], true],
      ];
      for (const [word, names, granted] of switches) {
        const { out, err, code } = await ethtool(`-K hv0 ${word} on`);
        const states = new Map((await remote.features()).map((state) => [state.name, state]));
        for (const name of names) {
          assert.equal(states.get(name)!.on, granted === true, name);
          assert.equal(states.get(name)!.wanted, true, name);
        }
        assert.equal(code, granted === true ? 0 : 1, err);
        if (granted === true) assert.equal(err, '');
        else {
          assert.deepEqual(reasons(err).length, names.length, err);
          for (const [i, name] of names.entries()) {
            assert.match(out, new RegExp(`^${name}: off \\[requested on\\]$`, 'm'));
            assert.ok(reasons(err)[i]!.startsWith(`netvsc: ${name}: `), err);
            assert.match(reasons(err)[i]!, granted);
          }
          assert.match(err, /^Could not change any device features$/m);
        }
      }
    });

    await t.test('-l, -L, -x, -X', async () => {
      const { maxCombined, combined } = await remote.channels();
      assert.deepEqual([maxCombined, combined], many ? [64, 2] : [1, 1]);
      const tooMany = await ethtool(`-L hv0 combined ${maxCombined + 1}`);
      assert.equal(tooMany.code, 1);
      assert.match(
        tooMany.err,
        /^netlink error: requested channel count exceeds maximum \(offset 32\)\nnetlink error: Invalid argument\n/,
      );
      assert.match(
        reasons(tooMany.err)[0]!,
        many ? /the host has 64 channels at most$/ : (expected.channels as RegExp),
      );
      const none = await ethtool('-L hv0 combined 0');
      assert.deepEqual([none.code, (await remote.channels()).combined], [1, combined], none.err);
      if (many) {
        assert.deepEqual(await ethtool('-L hv0 combined 3'), done);
        assert.equal((await remote.channels()).combined, 3);
        assert.deepEqual(await ethtool('-X hv0 equal 2'), done);
        assert.deepEqual(new Set((await remote.rss()).table), new Set([0, 1]));
        const beyond = await ethtool('-X hv0 weight 0 0 0 1');
        assert.notEqual(beyond.code, 0);
        assert.notEqual(beyond.err, '');
      } else {
        for (const words of ['-x hv0', '-X hv0 equal 1']) {
          const { err, code } = await ethtool(words);
          assert.equal(code, 1);
          assert.match(err, /^Cannot get RX flow hash indirection table size: Operation not supported$/m);
          assert.match(reasons(err)[0]!, expected.channels as RegExp);
        }
      }
    });

    await t.test('-n, -N', async () => {
      for (const flow of FLOWS) {
        const byPorts = !flow.startsWith('ip');
        const { level, receive } = await remote.flowHash(flow);
        assert.equal(level, byPorts ? 'L4' : 'L3');
        // UDP by ports only for those who ask: its fragments go another way then.
        assert.equal(receive, many && !flow.startsWith('udp'), flow);
        if (!byPorts) continue;
        for (const [letters, wanted] of [
          ['sd', 'L3'],
          ['sdfn', 'L4'],
        ] as const) {
          assert.deepEqual(await ethtool(`-N hv0 rx-flow-hash ${flow} ${letters}`), done);
          const inForce = many && (wanted === 'L3' || expected.udpHash || flow.startsWith('tcp'));
          assert.deepEqual(await remote.flowHash(flow), { flow, level: wanted, receive: inForce });
        }
      }
    });

    await t.test('-g, -G', async () => {
      const { maxRx, tx } = await remote.rings();
      const tooMany = await ethtool(`-G hv0 rx ${maxRx + 1}`);
      assert.equal(tooMany.code, 81);
      assert.match(
        tooMany.err,
        /requested ring size exceeds maximum \(offset 32\)\nnetlink error: Invalid argument\n$/,
      );
      assert.deepEqual(await ethtool('-G hv0 rx 2500'), done);
      const now = await remote.rings();
      // The host divides whole pages.
      assert.ok(now.rx >= 2500 && now.rx < 2510, `${now.rx} sections`);
      assert.equal(now.tx, tx);
    });

    await t.test('what no such device has, and the link', async () => {
      for (const [words, code] of [
        ['-c hv0', 1],
        ['-C hv0 rx-usecs 10', 1],
        ['-a hv0', 1],
        ['-A hv0 rx off', 76],
      ] as const) {
        const refused = await ethtool(words);
        assert.equal(refused.code, code, words);
        assert.match(refused.err, /Operation not supported\n/);
      }
      assert.match((await ethtool('hv0')).out, new RegExp(`^\\tSpeed: ${expected.speedMbps}Mb/s$`, 'm'));
    });

    await t.test('MTU: to the largest frame that the host takes, no further', async () => {
      for (const place of [here, there]) await place.ip('link set hv0 mtu 9202');
      // Do not fragment: it has to fit.
      const words = ['-n', '-c', '1', '-W', '2', '-M', 'do', '-s', `${9202 - 28}`, there.address];
      await here.until('the largest packet', async () => (await here.attempt('ping', ...words)).code === 0);
      for (const place of [here, there]) {
        await place.ip('link set hv0 mtu 65521');
        await place.untilLink('the MTU of before', ({ mtu }) => mtu === 9202);
        await place.until('the reason', async () => place.up!.said.endsWith('\n'));
        assert.match(place.up!.said, /^hv0: MTU 65521: .*the host refused 65521, it gave 1500; it stays 9202$/m);
      }
      await here.until('it again', async () => (await here.attempt('ping', ...words)).code === 0);
    });

    for (const address of [there.address, there.address6])
      assert.deepEqual(await talk(here, there, address, 4, 30), { equal: true, answered: 30, damaged: 0 });
  });
}
