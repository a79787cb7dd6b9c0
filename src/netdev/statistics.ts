// What an interface counts, in ethtool -S's order: hv_netvsc's names first (facts/linux-guest.md 5.2), then ours, one for every
// reason why a packet may be lost. docs/counters.md says the same in more words; a test compares names.
import type { BasicStats, QueueStats } from '../ethdev/types.js';
import type { GroCounters } from '../offload/gro.js';

/** What is asked of a port: a Port, or the last values of one that is gone. */
export interface CountedPort {
  stats(): BasicStats;
  queueStats(queue: number): QueueStats | undefined;
  xstats(): (readonly [name: string, value: number])[];
}

/** What is counted between the two ports. */
export interface CouplingCounters {
  /** Received, but the interface was down or gone. */
  readonly rxDownDropped: number;
  /** Taken from the kernel, but the device went away before it had them. */
  readonly txGoneDropped: number;
  /** Large packets cut here, what became of them, and those that could not be cut. */
  readonly cut: { readonly packets: number; readonly segments: number; readonly failed: number };
  readonly gro: GroCounters;
  /** How long the last change of the device kept packets waiting, microseconds. */
  readonly lastGapUs: number;
}

/** A moment's values. */
interface Values {
  readonly device: BasicStats;
  readonly kernel: BasicStats;
  readonly coupling: CouplingCounters;
  /** An extended statistic of the device; 0 where it has none of that name. */
  readonly x: (name: string) => number;
}

export interface CounterDefinition {
  readonly name: string;
  /** One line, without a full stop. */
  readonly help: string;
  /** Goes down, too. */
  readonly gauge?: boolean;
  readonly value: (values: Values) => number;
}

const extended = (name: string, help: string, ...of: readonly string[]): CounterDefinition => ({
  name,
  help,
  value: ({ x }) => of.reduce((sum, one) => sum + x(one), 0),
});
const never = (name: string, help: string): CounterDefinition => ({ name, help, value: () => 0 });

/** hv_netvsc's, in its order. */
const HV_NETVSC: readonly CounterDefinition[] = [
  never('tx_scattered', 'Packets put together because they had too many pieces; 0, as pieces are sent as they are'),
  {
    name: 'tx_no_memory',
    help: 'Times that a packet of the kernel had to wait because no buffer was free',
    value: ({ kernel }) => kernel.rxNombuf,
  },
  {
    name: 'tx_no_space',
    help: 'Packets of the kernel dropped because there was no device any more to take them',
    value: ({ coupling }) => coupling.txGoneDropped,
  },
  extended(
    'tx_too_big',
    'Packets dropped that the device cannot send: too long, or not to be shown to the host',
    'tx_refused_packets',
  ),
  extended('tx_busy', 'Bursts that ended early because the ring to the host was full', 'tx_busy'),
  extended('tx_send_full', 'Packets for which no send-buffer section was free', 'tx_no_section'),
  extended('rx_comp_busy', 'Times that receive completions waited for room in the ring', 'rx_completions_delayed'),
  {
    name: 'rx_no_memory',
    help: 'Received packets dropped because no buffer was free',
    value: ({ device }) => device.rxNombuf,
  },
  extended('stop_queue', 'Times that a queue stopped because its ring was nearly full', 'tx_stops'),
  extended('wake_queue', 'Times that a stopped queue went on', 'tx_wakes'),
  never('vlan_error', 'VLAN tags that could not be taken out of a packet; 0, as they may stay in it'),
  never('vf_rx_packets', 'Packets received by the virtual function'),
  never('vf_rx_bytes', 'Bytes received by the virtual function'),
  never('vf_tx_packets', 'Packets sent by the virtual function'),
  never('vf_tx_bytes', 'Bytes sent by the virtual function'),
  never('vf_tx_dropped', 'Packets that the virtual function did not take'),
];

/** Of a queue, in hv_netvsc's order: "tx_queue_N_" and "rx_queue_N_" in front of the name. */
export const QUEUE_COUNTERS = {
  tx: [
    ['packets', 'Packets that the host has taken'],
    ['bytes', 'Bytes of them'],
    ['xdp_xmit', 'Packets that an XDP program elsewhere sent by this queue'],
  ],
  rx: [
    ['packets', 'Packets received'],
    ['bytes', 'Bytes of them'],
    ['xdp_drop', 'Packets that the XDP program dropped'],
    ['xdp_redirect', 'Packets that the XDP program sent elsewhere'],
    ['xdp_tx', 'Packets that the XDP program sent back'],
  ],
} as const;

const device = (name: string, help: string): CounterDefinition => extended(name, help, name);

const OWN: readonly CounterDefinition[] = [
  // Of all queues that there ever were.
  { name: 'rx_packets', help: 'Packets received', value: ({ device }) => device.ipackets },
  { name: 'rx_bytes', help: 'Bytes of them', value: ({ device }) => device.ibytes },
  { name: 'tx_packets', help: 'Packets that the host has taken', value: ({ device }) => device.opackets },
  { name: 'tx_bytes', help: 'Bytes of them', value: ({ device }) => device.obytes },
  // The interface as the kernel counts it.
  {
    name: 'kernel_rx_packets',
    help: "Packets given to the kernel: the interface's rx packets",
    value: ({ kernel }) => kernel.opackets,
  },
  { name: 'kernel_rx_bytes', help: 'Bytes of them', value: ({ kernel }) => kernel.obytes },
  {
    name: 'kernel_tx_packets',
    help: "Packets taken from the kernel: the interface's tx packets",
    value: ({ kernel }) => kernel.ipackets,
  },
  { name: 'kernel_tx_bytes', help: 'Bytes of them', value: ({ kernel }) => kernel.ibytes },
  // Received packets that are lost.
  {
    name: 'rx_missed',
    help: 'Received packets dropped because nobody took them in time',
    value: ({ device }) => device.imissed,
  },
  {
    name: 'rx_down_dropped',
    help: 'Received packets dropped because the interface was down or gone',
    value: ({ coupling }) => coupling.rxDownDropped,
  },
  {
    name: 'rx_kernel_refused',
    help: 'Received packets that the kernel did not take',
    value: ({ kernel }) => kernel.oerrors,
  },
  extended('rx_filtered', 'Received packets that are not for this interface', 'rx_filtered_packets'),
  extended('rx_too_long', 'Received packets longer than the buffers for them', 'rx_too_long_packets'),
  extended('rx_bad_nvsp', 'Transfer-page packets without an RNDIS message', 'rx_bad_nvsp_messages'),
  extended('rx_bad_buffer_id', 'Transfer-page packets that name another buffer', 'rx_bad_buffer_ids'),
  extended('rx_bad_range', 'Ranges outside the receive buffer, or longer than a section', 'rx_bad_ranges'),
  extended('rx_bad_rndis', 'RNDIS messages whose lengths or offsets are wrong', 'rx_bad_rndis_messages'),
  extended('rx_bad_packet_info', 'Packets whose per-packet info is malformed', 'rx_bad_packet_infos'),
  extended('rx_bad_coalescing', 'Coalesced packets of which a piece was missing', 'rx_bad_coalescing'),
  extended('rx_bad_packet_type', 'Ring packets of a type that no host sends', 'rx_bad_packet_types'),
  // Packets to send that are lost, or late.
  {
    name: 'tx_kernel_dropped',
    help: "Packets that the kernel dropped because its queue for us was full: the interface's tx dropped",
    value: ({ kernel }) => kernel.imissed,
  },
  {
    name: 'tx_kernel_errors',
    help: 'Packets of the kernel that could not be read whole',
    value: ({ kernel }) => kernel.ierrors,
  },
  {
    name: 'tx_cut_failed',
    help: 'Large packets dropped because they could not be cut',
    value: ({ coupling }) => coupling.cut.failed,
  },
  extended('tx_failed', 'Packets that the host has refused', 'tx_failed_packets'),
  extended('tx_abandoned', 'Packets whose completion had not come when the channel closed', 'tx_abandoned_packets'),
  extended('tx_ring_full', 'Messages that waited because the ring was full', 'tx_channel_full'),
  extended('tx_no_slot', 'Packets that waited because too many sends were in flight', 'tx_no_slot'),
  extended('tx_unknown_completions', 'Completions of sends that are not in flight', 'tx_unknown_completions'),
  // How packets went.
  extended('tx_copied', 'Packets sent by a copy in the send buffer', 'tx_copied_packets'),
  extended('tx_direct', 'Packets that the host read where they lay', 'tx_direct_packets'),
  extended('tx_tso', 'Large packets left to the host to cut', 'tx_tso_packets'),
  {
    name: 'tx_cut',
    help: 'Large packets cut here because the host does not, or not any more',
    value: ({ coupling }) => coupling.cut.packets,
  },
  { name: 'tx_cut_segments', help: 'Packets made of them', value: ({ coupling }) => coupling.cut.segments },
  extended('tx_checksum_software', 'Checksums computed here because the host does not', 'tx_software_checksum_packets'),
  extended('tx_vlan', 'Packets sent with a VLAN tag', 'tx_vlan_packets'),
  extended('rx_vlan', 'Packets received with a VLAN tag', 'rx_vlan_packets'),
  extended('rx_checksum_good', 'Packets whose checksum the host found good', 'rx_checksum_good_packets'),
  extended(
    'rx_checksum_bad',
    'Packets whose checksum the host found bad; the kernel decides',
    'rx_checksum_bad_packets',
  ),
  extended('rx_lro_packets', 'Packets that the host has put together', 'rx_coalesced_packets'),
  extended('rx_lro_segments', 'Pieces of them', 'rx_coalesced_fragments'),
  {
    name: 'rx_gro_packets',
    help: 'Packets that receive offload has looked at',
    value: ({ coupling }) => coupling.gro.packets,
  },
  {
    name: 'rx_gro_merged',
    help: 'Of those, packets that went into another one',
    value: ({ coupling }) => coupling.gro.merged,
  },
  { name: 'rx_gro_coalesced', help: 'Packets made of several', value: ({ coupling }) => coupling.gro.coalesced },
  {
    name: 'rx_gro_evicted',
    help: 'Packets given on early as another flow needed the place',
    value: ({ coupling }) => coupling.gro.evicted,
  },
  {
    name: 'rx_gro_checksums',
    help: 'Checksums that the host had not looked at',
    value: ({ coupling }) => coupling.gro.checksums,
  },
  {
    name: 'rx_gro_bad_checksums',
    help: 'Of all that were looked at, wrong ones; the kernel decides',
    value: ({ coupling }) => coupling.gro.badChecksums,
  },
  // The device.
  device('device_attaches', 'Times that the channel was opened'),
  device('device_failures', 'Times that the device could not be opened, or failed'),
  device('device_interrupts', 'Interrupts of the host'),
  device('device_link_changes', 'Times that the host said that the link is up or down'),
  device('device_keepalives', 'Keepalive messages of the host, all answered'),
  device('device_resets', 'Reset messages of the host, all answered'),
  device('device_indications', 'Indications of the host'),
  device('device_bad_indications', 'Indications that are malformed'),
  device('device_bad_host_messages', 'Control messages of the host that are malformed or unknown'),
  device('device_request_timeouts', 'Requests that the host did not answer in time'),
  device('device_unexpected_replies', 'Answers that nobody waited for'),
  device('device_mismatched_replies', 'Answers of the wrong type or length'),
  device('device_answers_dropped', 'Answers to the host given up because too many waited'),
  device('device_send_timeouts', 'Times that the host completed no send of a queue for 5 seconds'),
  device('device_missing_queues', 'Channels that the host granted and that could not be opened'),
  {
    name: 'last_change_gap_us',
    help: 'How long the last change of the device kept packets waiting, microseconds',
    gauge: true,
    value: ({ coupling }) => coupling.lastGapUs,
  },
];

/** All but those of queues. */
export const COUNTERS: readonly CounterDefinition[] = [...HV_NETVSC, ...OWN];

interface Saved {
  readonly stats: BasicStats;
  readonly queues: readonly QueueStats[];
  readonly xstats: ReadonlyMap<string, number>;
}

/** Most queues that an interface can have. */
const QUEUES_MAX = 64;
const NONE: BasicStats = {
  ipackets: 0,
  opackets: 0,
  ibytes: 0,
  obytes: 0,
  imissed: 0,
  ierrors: 0,
  oerrors: 0,
  rxNombuf: 0,
};
const NO_QUEUE: QueueStats = { rx: { packets: 0, bytes: 0, errors: 0 }, tx: { packets: 0, bytes: 0, errors: 0 } };

/** The counters of an interface, whose device may be replaced by another port: what the old one counted stays. */
export class InterfaceStatistics {
  #before: Saved = { stats: NONE, queues: [], xstats: new Map() };

  /** The device is about to go: call it before its port is closed, and use another one from then on. */
  absorb(device: CountedPort): void {
    this.#before = this.#together(device);
  }

  /** Names and values in ethtool's order; `device`: undefined while there is none; `queues`: queue pairs that there are now. */
  list(
    device: CountedPort | undefined,
    kernel: CountedPort,
    queues: number,
    coupling: CouplingCounters,
  ): (readonly [name: string, value: number])[] {
    const all = device === undefined ? this.#before : this.#together(device);
    const x = (name: string): number => all.xstats.get(name) ?? 0;
    const values: Values = { device: all.stats, kernel: kernel.stats(), coupling, x };
    const of = (list: readonly CounterDefinition[]) => list.map(({ name, value }) => [name, value(values)] as const);
    const perQueue: (readonly [string, number])[] = [];
    for (let queue = 0; queue < queues; queue++) {
      const { tx, rx } = all.queues[queue] ?? NO_QUEUE;
      perQueue.push(...queueCounters(`tx_queue_${queue}_`, QUEUE_COUNTERS.tx, tx));
      perQueue.push(...queueCounters(`rx_queue_${queue}_`, QUEUE_COUNTERS.rx, rx));
    }
    return [...of(HV_NETVSC), ...perQueue, ...of(OWN)];
  }

  /** What all devices have counted. */
  #together(device: CountedPort): Saved {
    const before = this.#before;
    const stats = { ...before.stats };
    for (const [name, value] of Object.entries(device.stats())) stats[name as keyof BasicStats] += value;
    const queues = Array.from({ length: QUEUES_MAX }, (_, queue) =>
      sum(before.queues[queue] ?? NO_QUEUE, device.queueStats(queue) ?? NO_QUEUE),
    );
    const xstats = new Map(before.xstats);
    for (const [name, value] of device.xstats()) xstats.set(name, (before.xstats.get(name) ?? 0) + value);
    return { stats, queues, xstats };
  }
}

function sum(a: QueueStats, b: QueueStats): QueueStats {
  const of = (direction: 'rx' | 'tx') => ({
    packets: a[direction].packets + b[direction].packets,
    bytes: a[direction].bytes + b[direction].bytes,
    errors: a[direction].errors + b[direction].errors,
  });
  return { rx: of('rx'), tx: of('tx') };
}

/** What a port does not count is 0: XDP is not there. */
function queueCounters(
  prefix: string,
  names: readonly (readonly [name: string, help: string])[],
  counted: QueueStats['rx'],
): (readonly [string, number])[] {
  const values: Readonly<Record<string, number>> = { packets: counted.packets, bytes: counted.bytes };
  return names.map(([name]) => [`${prefix}${name}`, values[name] ?? 0]);
}
