// Large transfers and every size of ping through two interfaces, with the MTUs that there are.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HostProcess, type Place, talk, twoPlaces } from '../netdev/rig.js';
import { skipReason } from './rig.js';

const skip = skipReason();
const long = process.env.NETVSC_LONG === '1';
const MEGABYTES = long ? 10_000 : 100;
const LATE_MS = 20 * 60_000;

/** Total of counters by name. */
async function counters(place: Place): Promise<ReadonlyMap<string, number>> {
  const { said, code } = await place.netvsc('ethtool', '-S', 'hv0');
  assert.equal(code, 0, said);
  return new Map(
    said
      .split('\n')
      .map((line) => /^\s+(\w+): (\d+)$/.exec(line))
      .flatMap((found) => (found ? [[found[1]!, Number(found[2])] as const] : [])),
  );
}

type KernelCounters = Record<'rx' | 'tx', { readonly packets: number }>;

async function kernelCounters(place: Place): Promise<KernelCounters> {
  return (JSON.parse(await place.ip('-j -s link show dev hv0')) as { stats64: KernelCounters }[])[0]!.stats64;
}

test(`${MEGABYTES} MiB by TCP, each way: the same hash at both ends`, { skip }, async (t) => {
  const host = await HostProcess.start(t);
  const places = await twoPlaces(t, host);
  const [here, there] = places;
  for (const place of places) place.lateMs = long ? LATE_MS : place.lateMs;
  const began = performance.now();
  assert.equal((await talk(here, there, there.address, MEGABYTES, 0)).equal, true);
  const seconds = (performance.now() - began) / 1000;
  t.diagnostic(
    `${MEGABYTES} MiB in ${seconds.toFixed(1)} s, ${((MEGABYTES * 8.389) / 1000 / seconds).toFixed(2)} Gbit/s`,
  );
  assert.equal((await talk(there, here, here.address6, MEGABYTES, 0)).equal, true);
  for (const place of places) {
    // As -S has them; what the kernel counts itself agrees. Its own packets (neighbours, routers) come at any time.
    const before = await kernelCounters(place);
    const all = await counters(place);
    const after = await kernelCounters(place);
    for (const way of ['rx', 'tx'] as const) {
      const count = all.get(`kernel_${way}_packets`)!;
      assert.ok(before[way].packets <= count && count <= after[way].packets, `${way}: ${count}`);
    }
    for (const [name, value] of all)
      if (/^(rx_bad_|rx_missed|rx_too_long|rx_kernel_refused|tx_failed|tx_too_big|tx_no_space)/.test(name))
        assert.equal(value, 0, name);
  }
});

for (const mtu of [1280, 1500, 9000, 9202]) {
  test(`ping of every size, MTU ${mtu}`, { skip }, async (t) => {
    const host = await HostProcess.start(t);
    const [here, there] = await twoPlaces(t, host, '--mtu', `${mtu}`);
    assert.equal((await here.link()).mtu, mtu);
    for (const [target, headers] of [
      [there.address, 28],
      [there.address6, 48],
    ] as const) {
      // One that is late is sent for again, and may come, too.
      for (const bytes of [0, 1, 17, 18, 56, mtu - headers - 1, mtu - headers, mtu - headers + 1, 2 * mtu, 65_000])
        assert.ok((await here.ping(target, bytes, 3)) >= 3, `${bytes} bytes to ${target}`);
      // The largest that needs no fragments, and the first that does.
      const whole = ['-n', '-c', '1', '-w', '10', '-M', 'do', target, '-s'];
      assert.equal((await here.attempt('ping', ...whole, `${mtu - headers}`)).code, 0);
      assert.notEqual((await here.attempt('ping', ...whole, `${mtu - headers + 1}`)).code, 0);
    }
    assert.deepEqual(await talk(here, there, there.address6, 10, 50), { equal: true, answered: 50, damaged: 0 });
  });
}
