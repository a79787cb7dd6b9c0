// The same words to Debian's ethtool, on interfaces of the kernel, and to ours: same texts, same exit codes.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { FeatureState } from '../../netdev/control.js';
import type { RemoteNetdev } from '../../netdev/control-client.js';
import { MemoryNetdev } from '../../netdev/control-testing.js';
import { asRemote, type Outcome, runEthtool } from './ethtool-testing.js';
import { GROUPS, KERNEL_FEATURES } from './features.js';

const SPACE = `nv-ethtool-${process.pid}`;
const TIMEOUT_MS = 20_000;

function missing(): string | false {
  const version = spawnSync('ethtool', ['--version'], { encoding: 'utf8' });
  if (version.error) return 'needs ethtool';
  if (!/version 6\.1\b/.test(version.stdout)) return `needs ethtool 6.1, here is ${version.stdout.trim()}`;
  if (spawnSync('ip', ['netns', 'add', SPACE]).status !== 0) return 'needs network namespaces (root)';
  execFileSync('ip', ['netns', 'del', SPACE]);
  return false;
}

function peer(...words: string[]): Outcome {
  const { stdout, stderr, status, error } = spawnSync('ip', ['netns', 'exec', SPACE, 'ethtool', ...words], {
    encoding: 'utf8',
    timeout: TIMEOUT_MS,
  });
  if (error) throw error;
  return { out: stdout, err: stderr, code: status! };
}

const ip = (...words: string[]): void => void execFileSync('ip', ['-n', SPACE, ...words]);

/** A kernel's interface with its real features, set and read by the peer; the rest is made up. */
function kernelFeatures(name: string): RemoteNetdev {
  const kernelName = (label: string) => {
    const group = GROUPS.find(({ long }) => long === label);
    return KERNEL_FEATURES.find((name) => group?.means.test(name)) ?? label;
  };
  const features = async () => {
    const [object] = JSON.parse(peer('--json', '-k', name).out) as [Record<string, FeatureJson>];
    const { ifname: _, ...entries } = object as Record<string, unknown>;
    return Object.entries(entries as Record<string, FeatureJson>)
      .filter(([, { fixed }]) => fixed !== null)
      .map(
        ([label, { active, fixed, requested }]): FeatureState => ({
          ...{ name: kernelName(label), on: active, wanted: requested!, fixed: fixed! },
        }),
      );
  };
  const setFeatures = async (wanted: Readonly<Record<string, boolean>>) =>
    void peer('-K', name, ...Object.entries(wanted).flatMap(([feature, on]) => [feature, on ? 'on' : 'off']));
  const rest = asRemote(new MemoryNetdev(name));
  return new Proxy(rest, {
    get: (target, member) =>
      member === 'features' ? features : member === 'setFeatures' ? setFeatures : target[member as keyof RemoteNetdev],
  });
}

interface FeatureJson {
  readonly active: boolean;
  readonly fixed: boolean | null;
  readonly requested: boolean | null;
}

describe('beside ethtool 6.1', { skip: missing() }, () => {
  before(() => {
    execFileSync('ip', ['netns', 'add', SPACE]);
    for (const pair of ['a', 'b']) ip('link', 'add', `veth-${pair}`, 'type', 'veth', 'peer', 'name', `peer-${pair}`);
    ip('tuntap', 'add', 'tap-a', 'mode', 'tap', 'multi_queue', 'vnet_hdr');
  });

  after(() => {
    spawnSync('ip', ['netns', 'del', SPACE]);
  });

  describe('words', () => {
    let remote: RemoteNetdev;
    beforeEach(() => {
      remote = asRemote(new MemoryNetdev());
    });

    /** Words that are refused before, or whatever, the device is asked. */
    const alike = (...lines: string[]) => {
      for (const line of lines) {
        test(line === '' ? '(none)' : line, async () => {
          const words = line === '' ? [] : line.split(' ').map((word) => (word === "''" ? '' : word));
          assert.deepEqual(await runEthtool(remote, ...words), peer(...words));
        });
      }
    };

    alike('', '-i', '-k', '-Z veth-a', '--foo veth-a', '--json', '--json -l', '--debug', '--debug x -l veth-a');
    alike(
      '-i veth-a more',
      '-x veth-a more',
      '-x veth-a context',
      '-x veth-a context x',
      '-d veth-a raw',
      '-d veth-a foo',
    );
    for (const option of ['-k', '-l', '-g', '-c', '-T', '-a']) alike(`${option} veth-a more`);
    alike('-S veth-a more', '-S veth-a --groups', '-S veth-a --foo', '-S veth-a --all-groups');
    for (const [option, name, value] of [
      ['-L', 'combined', '3x'],
      ['-L', 'rx', "''"],
      ['-G', 'rx', '4294967296'],
      ['-G', 'tx-push', 'maybe'],
      ['-C', 'rx-usecs', '-1'],
      ['-C', 'adaptive-rx', 'maybe'],
      ['-A', 'rx', 'maybe'],
      ['-s', 'speed', 'x'],
    ] as const) {
      alike(`${option} veth-a ${name} ${value}`, `${option} veth-a ${name}`, `${option} veth-a foo 1`);
      alike(`${option} veth-a ${name} ${value === 'maybe' ? 'on' : 1} ${name}`);
    }
    alike('-K veth-a tso', '-K veth-a tso maybe', '-K veth-a on', '-K veth-a tso on lro', '-A veth-a foo');
    alike('-n veth-a foo', '-n veth-a rx-flow-hash', '-n veth-a rx-flow-hash foo', '-n veth-a rx-flow-hash ip4');
    alike('-n veth-a rule', '-n veth-a rx-flow-hash tcp4 x', '-N veth-a', '-N veth-a foo', '-N veth-a rx-flow-hash');
    alike('-N veth-a rx-flow-hash tcp4', '-N veth-a rx-flow-hash tcp4 sdx', '-N veth-a rx-flow-hash foo sd');
    alike('-N veth-a flow-type foo', '-N veth-a flow-type', '-N veth-a delete', '-N veth-a delete x');
    alike(
      '-X veth-a',
      '-X veth-a equal',
      '-X veth-a equal 0',
      '-X veth-a equal x',
      '-X veth-a foo',
      '-X veth-a weight',
    );
    alike('-X veth-a equal 2 weight 1', '-X veth-a equal 2 default', '-X veth-a start 2', '-X veth-a delete');
    alike('-X veth-a weight 1 default', '-X veth-a weight 1 x', '-X veth-a hkey', '-X veth-a hfunc');
    alike('-t veth-a foo', '-t veth-a online x', '-p veth-a x');
    // What veth, and hv_netvsc, do not have.
    for (const option of [
      '-t',
      '-t offline',
      '-r',
      '-p',
      '-e',
      '-m',
      '-w',
      '--show-eee',
      '--show-fec',
      '-a',
      '--cable-test',
    ])
      alike(option.replace(/^(\S+)/, '$1 veth-a'));
    alike(
      '--show-priv-flags veth-a',
      '--set-priv-flags veth-a x on',
      '--phy-statistics veth-a',
      '--set-eee veth-a eee on',
    );
    alike('--set-fec veth-a encoding auto', '-W veth-a 1', '--get-phy-tunable veth-a downshift');
    alike(
      '-A veth-a',
      '-A veth-a rx on',
      '--json -a veth-a',
      '-s veth-a',
      '-s veth-a speed 100',
      '-s veth-a duplex full',
    );
    alike('-n veth-a rule 1', '-N veth-a delete 1', '-N veth-a flow-type tcp4 action 1', '-T veth-a');
    alike('-N veth-a rx-flow-hash tcp4 sdf', '-N veth-a rx-flow-hash ah4 sd');
    // The kernel's own checks, the same for all devices.
    alike('-L veth-a rx 99', '-L veth-a rx 99 combined 9', '-L veth-a combined 99', '-L veth-a other 1', '-L veth-a');
    alike(
      '-G veth-a tx-push on',
      '-G veth-a rx-buf-len 5',
      '-G veth-a rx 5 rx-buf-len 0',
      '-G veth-a rx 5 tx-push off',
    );
    alike('-G veth-a cqe-size 64', '-G veth-a cqe-size 0', '-G veth-a rx-buf-len 0 tx-push on');
    alike('-C tap-a rx-usecs-irq 3', '-C tap-a rx-frames 5 adaptive-rx on', '-C tap-a cqe-mode-tx off');
    // Names.
    const long = 'averyveryverylongname';
    for (const option of ['-i', '-S', '-x', '-n', '-d']) alike(`${option} ${long}`);
    alike(`-X ${long} equal 2`, `-N ${long} rx-flow-hash tcp4 sd`);
  });

  describe('no such interface', () => {
    const settings = [
      '-L combined 1',
      '-G rx 1',
      '-C rx-usecs 1',
      '-A rx on',
      '-K tso on',
      '-X equal 2',
      '-s speed 100',
    ];
    const flows = [
      '-n rx-flow-hash tcp4',
      '-N rx-flow-hash tcp4 sd',
      '-N delete 1',
      '-n rule 1',
      '-N flow-type tcp4 action 1',
    ];
    const shows = [
      '-i',
      '-k',
      '-l',
      '-g',
      '-c',
      '-a',
      '-x',
      '-n',
      '-S',
      '-T',
      '-P',
      '-d',
      '-t',
      '-r',
      '-p',
      '-e',
      '-m',
    ];
    const more = [
      '-S --all-groups',
      '--show-eee',
      '--show-fec',
      '-w',
      '--show-priv-flags',
      '--json -k',
      '--json -a',
      '--set-eee eee on',
      '-s',
      '-W 1',
      '--set-fec encoding auto',
      '--phy-statistics',
      '--cable-test',
      '--get-phy-tunable downshift',
      '-A',
      '-L',
      '-G',
      '-C',
      '-K',
    ];
    for (const line of [...shows, ...settings, ...flows, ...more, '']) {
      test(line === '' ? 'no option' : line, async () => {
        const words = line
          .replace(/^(--json )?(\S*)/, '$1$2 nosuch')
          .trim()
          .split(' ');
        assert.deepEqual(await runEthtool(undefined, ...words), peer(...words));
      });
    }
  });

  describe('features of a real interface', () => {
    const named = (text: string) => text.replaceAll('veth-a', 'veth-b');

    test('-k and --json -k, of veth, tap and lo', async () => {
      for (const name of ['veth-a', 'tap-a', 'lo']) {
        for (const flags of [[], ['--json']]) {
          const { out, ...rest } = peer(...flags, '-k', name);
          assert.deepEqual(await runEthtool(kernelFeatures(name), ...flags, '-k', name), { out, ...rest });
        }
      }
    });

    test('-K: the same changes on two alike', async () => {
      const changes = [
        ...['tso off', 'tso off', 'tso on', 'sg off', 'sg on', 'lro on', 'lro off', 'foo on', 'tso off gso off'],
        ...['tso on gso on', 'tx off', 'tx on', 'tx on', 'rx off', 'rx on', 'tx-checksum-ip-generic off', 'tx on'],
        ...[
          'rxvlan off txvlan off',
          'rxvlan on txvlan on',
          'ntuple on',
          'rxhash on',
          'gro on',
          'gro off',
          'ufo on',
          '',
        ],
        ...['loopback on', 'tso off lro on', 'tso off lro on', 'tso on', 'tx-tcp-segmentation off', 'sg off tso on'],
        ...['sg on', 'tso on tso off', 'tso on', 'rx-checksumming off', 'generic-receive-offload on', 'TSO off'],
        ...[
          'rx-gro on foo on',
          'tso on foo on',
          'tso off tso on foo on',
          'gro on bar off foo on',
          '-- tso off',
          'rx on',
        ],
      ];
      const ours = kernelFeatures('veth-a');
      for (const change of changes) {
        const words = change === '' ? [] : change.split(' ');
        const mine = await runEthtool(ours, '-K', 'veth-a', ...words);
        assert.deepEqual(mine, peer('-K', 'veth-b', ...words), change);
        const now = await runEthtool(ours, '-k', 'veth-a');
        assert.equal(named(now.out), peer('-k', 'veth-b').out, `after ${change}`);
      }
    });
  });

  describe('forms', () => {
    /** Values that differ between the devices. */
    const form = (text: string) => text.replace(/: .*$/gm, ':').replace(/:\t+.*$/gm, ':');

    test('-i has the same lines', async () => {
      const ours = await runEthtool(asRemote(new MemoryNetdev()), '-i', 'veth-a');
      assert.equal(form(ours.out), form(peer('-i', 'veth-a').out));
    });

    test('-l, -c and -S have the same lines', async () => {
      const memory = asRemote(new MemoryNetdev());
      for (const [option, name] of [
        ['-l', 'veth-a'],
        ['-c', 'tap-a'],
      ] as const) {
        const ours = await runEthtool(memory, option, name);
        assert.equal(form(ours.out), form(peer(option, name).out), option);
      }
      const line = /^(NIC statistics:\n)( {5}\S+: \d+\n)+$/;
      assert.match(peer('-S', 'veth-a').out, line);
      assert.match((await runEthtool(memory, '-S', 'veth-a')).out, line);
    });

    test('no option: the same lines, but for twisted pair', async () => {
      const { out } = await runEthtool(asRemote(new MemoryNetdev()), 'veth-a');
      const real = peer('veth-a')
        .out.replace('Port: Twisted Pair', 'Port: Other')
        .replace(/\tMDI-X: .*\n/, '');
      assert.equal(out, real.replace('Link detected: no', 'Link detected: yes'));
    });
  });
});
