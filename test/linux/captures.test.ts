// What tcpdump sees on both sides of the switch with every offload on and off, read by tshark with all checksums verified.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { HostProcess, type Place, talk, twoPlaces } from '../netdev/rig.js';
import { Capture, type Seen, seen, skipReason } from './rig.js';

const skip = skipReason('tcpdump', 'tshark');
/** Bytes of the largest frame with MTU 1500. */
const FRAME = 1514;

/** What is on; all that is not named is. */
interface Offloads {
  readonly off: readonly ('sg' | 'tx' | 'tso' | 'rx' | 'gro' | 'lro')[];
  /** The sender's kernel gives us more than a frame at once. */
  readonly sendsLarge: boolean;
  /** The receiver's kernel gets more than a frame at once. */
  readonly receivesLarge: boolean;
  /** The sender's kernel leaves checksums to us. */
  readonly unfilled: boolean;
}

const CASES: readonly Offloads[] = [
  { off: [], sendsLarge: true, receivesLarge: true, unfilled: true },
  { off: ['lro'], sendsLarge: true, receivesLarge: true, unfilled: true },
  { off: ['gro'], sendsLarge: true, receivesLarge: true, unfilled: true },
  { off: ['gro', 'lro'], sendsLarge: true, receivesLarge: false, unfilled: true },
  { off: ['rx'], sendsLarge: true, receivesLarge: true, unfilled: true },
  { off: ['tso'], sendsLarge: false, receivesLarge: true, unfilled: true },
  { off: ['tx'], sendsLarge: false, receivesLarge: true, unfilled: false },
  { off: ['tx', 'gro', 'lro'], sendsLarge: false, receivesLarge: false, unfilled: false },
  { off: ['sg', 'tx', 'tso', 'rx', 'gro', 'lro'], sendsLarge: false, receivesLarge: false, unfilled: false },
];

const FEATURES = {
  sg: ['tx-scatter-gather'],
  tx: ['tx-checksum-ipv4', 'tx-checksum-ipv6'],
  tso: ['tx-tcp-segmentation', 'tx-tcp6-segmentation'],
  rx: ['rx-checksum'],
  gro: ['rx-gro'],
  lro: ['rx-lro'],
} as const;

async function set(t: TestContext, places: readonly Place[], off: Offloads['off']): Promise<void> {
  const wanted = Object.entries(FEATURES).flatMap(([word, names]) =>
    names.map((name) => [name, !off.includes(word as keyof typeof FEATURES)] as const),
  );
  for (const place of places) {
    const control = await place.control(t);
    await control.setFeatures(Object.fromEntries(wanted));
  }
}

/** Frames that carry data, so that they could be large. */
const large = (packets: readonly Seen[]) => packets.filter(({ length }) => length > FRAME).length;
const distinct = (packets: readonly Seen[], what: 'ip' | 'tcp' | 'udp') => new Set(packets.map((one) => one[what]));

function check(packets: readonly Seen[], unfilled: boolean, largeOnes: boolean, where: string): void {
  assert.ok(packets.length > 20, `${where}: ${packets.length} packets`);
  for (const [i, packet] of packets.entries()) {
    const what = `${where}, packet ${i + 1}: ${JSON.stringify(packet)}`;
    assert.equal(packet.malformed, false, what);
    assert.notEqual(packet.ip, 'bad', what);
    assert.notEqual(packet.tcp, 'bad', what);
    assert.notEqual(packet.udp, 'bad', what);
    // What the kernel or receive offload has put together has its sum made when it is cut again.
    if (!unfilled && packet.length <= FRAME) {
      assert.notEqual(packet.tcp, 'unfilled', what);
      assert.notEqual(packet.udp, 'unfilled', what);
    }
  }
  assert.equal(large(packets) > 0, largeOnes, `${where}: ${large(packets)} large packets`);
  const sums = (what: 'tcp' | 'udp') => [...distinct(packets, what)].some((sum) => sum !== undefined);
  assert.ok(sums('tcp') && sums('udp'), `${where}: no TCP or no UDP`);
}

/** Windows Server 2012 fills in no UDP checksums: the driver does. */
const RUNS = [
  ['ws2019', CASES],
  ['ws2012', CASES.slice(0, 1)],
] as const;

for (const [profile, cases] of RUNS) {
  test(`captures on both sides of ${profile}: checksums and sizes`, { skip }, async (t) => {
    const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-captures-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const host = await HostProcess.start(t, profile);
    const places = await twoPlaces(t, host);
    const [here, there] = places;
    for (const { off, sendsLarge, receivesLarge, unfilled } of cases) {
      const name = off.length === 0 ? 'all on' : `${off.join(', ')} off`;
      await t.test(name, async (t) => {
        await set(t, places, off);
        for (const address of [there.address, there.address6]) {
          const captures = await Promise.all(
            places.map((place, i) => Capture.start(place, path.join(folder, `${i}.pcap`), 'tcp or udp')),
          );
          const result = await talk(here, there, address, 2, 20);
          for (const capture of captures) await capture.stop();
          assert.deepEqual(result, { equal: true, answered: 20, damaged: 0 });
          const of = (i: number) => seen(captures[i]!.file).filter(({ source }) => source === host.nics[0]!.mac);
          check(of(0), unfilled, sendsLarge, `${name}, sender, ${address}`);
          check(of(1), unfilled, receivesLarge, `${name}, receiver, ${address}`);
        }
      });
    }
  });
}
