import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COUNTERS, type CountedPort, type CouplingCounters, InterfaceStatistics } from './statistics.js';

const NONE: CouplingCounters = {
  ...{ rxDownDropped: 0, txGoneDropped: 0, lastGapUs: 0, cut: { packets: 0, segments: 0, failed: 0 } },
  gro: { packets: 0, merged: 0, coalesced: 0, evicted: 0, checksums: 0, badChecksums: 0 },
};

/** A port whose every number is this one, or a multiple that tells it apart. */
function port(unit: number, xstats: Record<string, number> = {}): CountedPort {
  const stats = { ipackets: 1, opackets: 2, ibytes: 3, obytes: 4, imissed: 5, ierrors: 6, oerrors: 7, rxNombuf: 8 };
  const times = (values: Record<string, number>) =>
    Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value * unit]));
  return {
    stats: () => times(stats) as typeof stats,
    queueStats: (queue) =>
      queue > 1
        ? undefined
        : {
            rx: { packets: unit * (queue + 1), bytes: unit * 100, errors: 0 },
            tx: { packets: unit * (queue + 3), bytes: unit * 200, errors: 0 },
          },
    xstats: () => Object.entries(times(xstats)),
  };
}

test("hv_netvsc's names come first, in its order, then a block for each queue, then ours; none twice", () => {
  const list = new InterfaceStatistics().list(port(1), port(1), 2, NONE);
  const names = list.map(([name]) => name);
  const block = (queue: number) => [
    ...['packets', 'bytes', 'xdp_xmit'].map((name) => `tx_queue_${queue}_${name}`),
    ...['packets', 'bytes', 'xdp_drop', 'xdp_redirect', 'xdp_tx'].map((name) => `rx_queue_${queue}_${name}`),
  ];
  assert.deepEqual(names.slice(0, 16 + 2 * 8), [
    ...['tx_scattered', 'tx_no_memory', 'tx_no_space', 'tx_too_big', 'tx_busy', 'tx_send_full', 'rx_comp_busy'],
    ...['rx_no_memory', 'stop_queue', 'wake_queue', 'vlan_error'],
    ...['vf_rx_packets', 'vf_rx_bytes', 'vf_tx_packets', 'vf_tx_bytes', 'vf_tx_dropped'],
    ...block(0),
    ...block(1),
  ]);
  assert.equal(new Set(names).size, names.length);
  assert.equal(names.length, COUNTERS.length + 16);
  for (const name of names) assert.match(name, /^[a-z][a-z0-9_]{0,30}$/, 'ethtool has 31 letters for a name');
});

test('each counter is what its side has counted', () => {
  const device = port(1, {
    tx_refused_packets: 11,
    rx_bad_ranges: 12,
    device_keepalives: 13,
    tx_busy: 14,
    tx_no_section: 15,
  });
  const coupling = { ...NONE, rxDownDropped: 21, txGoneDropped: 22, lastGapUs: 23, gro: { ...NONE.gro, merged: 24 } };
  const value = new Map(new InterfaceStatistics().list(device, port(1000), 2, coupling));
  const seen = (names: readonly string[]) => names.map((name) => value.get(name));
  assert.deepEqual(
    seen(['tx_too_big', 'rx_bad_range', 'device_keepalives', 'tx_busy', 'tx_send_full']),
    [11, 12, 13, 14, 15],
  );
  assert.deepEqual(seen(['rx_down_dropped', 'tx_no_space', 'last_change_gap_us', 'rx_gro_merged']), [21, 22, 23, 24]);
  assert.deepEqual(seen(['rx_missed', 'rx_no_memory']), [5, 8]);
  assert.deepEqual(
    seen(['kernel_rx_packets', 'kernel_rx_bytes', 'kernel_tx_packets', 'kernel_tx_bytes']),
    [2000, 4000, 1000, 3000],
  );
  assert.deepEqual(
    seen(['tx_kernel_dropped', 'tx_kernel_errors', 'rx_kernel_refused', 'tx_no_memory']),
    [5000, 6000, 7000, 8000],
  );
  assert.deepEqual(
    seen(['rx_queue_1_packets', 'rx_queue_1_bytes', 'tx_queue_0_packets', 'tx_queue_0_bytes']),
    [2, 100, 3, 200],
  );
});

test('what a device counted that went stays, also while there is none', () => {
  const statistics = new InterfaceStatistics();
  const kernel = port(0);
  const seen = (device: CountedPort | undefined) => {
    const value = new Map(statistics.list(device, kernel, 1, NONE));
    return ['rx_missed', 'tx_too_big', 'rx_queue_0_packets', 'tx_queue_0_bytes'].map((name) => value.get(name));
  };
  const first = port(10, { tx_refused_packets: 3 });
  assert.deepEqual(seen(first), [50, 30, 10, 2000]);
  statistics.absorb(first);
  assert.deepEqual(seen(undefined), [50, 30, 10, 2000]);
  const second = port(1, { tx_refused_packets: 1 });
  assert.deepEqual(seen(second), [55, 31, 11, 2200]);
  statistics.absorb(second);
  assert.deepEqual(seen(undefined), [55, 31, 11, 2200]);
});

test('fewer queues: their lines go, the totals stay', () => {
  const statistics = new InterfaceStatistics();
  const device = port(1, { tx_refused_packets: 5 });
  const names = (queues: number) => new Map(statistics.list(device, port(0), queues, NONE));
  assert.equal(names(2).has('rx_queue_1_packets'), true);
  assert.equal(names(1).has('rx_queue_1_packets'), false);
  assert.equal(names(1).get('tx_too_big'), 5);
});
