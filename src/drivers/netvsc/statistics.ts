// Counters of a netvsc port, by queue number and through all openings of its device: what was handed out is counted in the
// GUEST_PORT, what the channel did in the GUEST_QUEUE. Names are DPDK's (facts/dpdk.md 2.8), then ours.
import type { BasicStats, QueueStats } from '../../ethdev/types.js';
import type { Arena } from '../../memory/arena.js';
import { read64 } from '../../memory/cells64.js';
import { GUEST_PORT, PACKET_KINDS } from '../../memory/layout.js';

type Counters = Readonly<Record<string, number>>;

const PORT_COUNTERS = Object.entries(GUEST_PORT.types).flatMap(([name, type]) => (type === 'u64' ? [name] : []));

/** Frames that were received and thrown away: what was wrong with them. */
const RX_FAULTS = [
  ...['rxBadNvsp', 'rxBadSet', 'rxBadRange', 'rxBadRndis', 'rxBadPpi', 'rxBadCoalescing', 'rxBadType', 'rxTooBig'],
];
const TX_FAULTS = ['txFailed', 'txAbandoned', 'txTooBig'];

/** Our own extended statistics, behind DPDK's. */
const RX_MORE: readonly (readonly [name: string, counter: string])[] = [
  ['filtered_packets', 'rxFiltered'],
  ['no_mbuf_packets', 'rxNoMbuf'],
  ['too_long_packets', 'rxTooBig'],
  ['bad_nvsp_messages', 'rxBadNvsp'],
  ['bad_buffer_ids', 'rxBadSet'],
  ['bad_ranges', 'rxBadRange'],
  ['bad_rndis_messages', 'rxBadRndis'],
  ['bad_packet_infos', 'rxBadPpi'],
  ['bad_coalescing', 'rxBadCoalescing'],
  ['bad_packet_types', 'rxBadType'],
  ['checksum_good_packets', 'rxChecksumGood'],
  ['checksum_bad_packets', 'rxChecksumBad'],
  ['coalesced_packets', 'rxCoalesced'],
  ['coalesced_fragments', 'rxCoalescedFragments'],
  ['external_packets', 'rxLent'],
  ['vlan_packets', 'rxVlan'],
];
const TX_MORE: readonly (readonly [name: string, counter: string])[] = [
  ['failed_packets', 'txFailed'],
  ['abandoned_packets', 'txAbandoned'],
  ['refused_packets', 'txTooBig'],
  ['copied_packets', 'txCopied'],
  ['direct_packets', 'txDirect'],
  ['no_section', 'txNoSection'],
  ['busy', 'txBusy'],
  ['stops', 'txStops'],
  ['wakes', 'txWakes'],
  ['unknown_completions', 'txUnknownTransaction'],
  ['software_checksum_packets', 'txSoftwareChecksum'],
  ['tso_packets', 'txLso'],
  ['vlan_packets', 'txVlan'],
];

/** What has a name of DPDK's in the list of a queue, and a better one in the list of all. */
const TOTALS_MORE: readonly (readonly [name: string, counter: string])[] = [
  ['tx_no_slot', 'txNoSlot'],
  ['tx_channel_full', 'ringFull'],
  ['rx_completions_delayed', 'rxCompletionsDelayed'],
];

/** Of the device, not of a queue. */
const DEVICE: readonly (readonly [name: string, counter: string])[] = [
  ['attaches', 'attaches'],
  ['failures', 'failures'],
  ['interrupts', 'interrupts'],
  ['link_changes', 'linkChanges'],
  ['keepalives', 'keepalives'],
  ['resets', 'resets'],
  ['indications', 'indications'],
  ['bad_indications', 'badIndications'],
  ['bad_host_messages', 'badHostMessages'],
  ['request_timeouts', 'requestTimeouts'],
  ['unexpected_replies', 'unexpectedReplies'],
  ['mismatched_replies', 'mismatchedReplies'],
  ['answers_dropped', 'answersDropped'],
  ['send_timeouts', 'sendTimeouts'],
  ['missing_queues', 'missingQueues'],
];

export class PortStatistics {
  readonly #arena: Arena;
  readonly #port: (queue: number) => number;
  readonly #channel: (queue: number) => Counters;
  readonly #device: () => Counters;
  readonly #queues: number;
  /** What the counters were at the last reset. */
  #before: Counters[] = [];
  #deviceBefore: Counters = {};

  /** `port`: address of a queue's GUEST_PORT; `channel`: counters of its channel over all openings, empty when it has none; `device`:
   *  those that belong to no queue. */
  constructor(
    arena: Arena,
    queues: number,
    port: (queue: number) => number,
    channel: (queue: number) => Counters,
    device: () => Counters,
  ) {
    this.#arena = arena;
    this.#queues = queues;
    this.#port = port;
    this.#channel = channel;
    this.#device = device;
  }

  basic(): BasicStats {
    const all = Array.from({ length: this.#queues }, (_, queue) => this.#counters(queue));
    const sum = (...names: string[]) => all.reduce((total, counters) => total + add(counters, names), 0);
    return {
      ...{ ipackets: sum('rxPackets'), ibytes: sum('rxBytes'), imissed: sum('rxMissed'), ierrors: sum(...RX_FAULTS) },
      ...{ opackets: sum('txCompleted'), obytes: sum('txCompletedBytes'), oerrors: sum(...TX_FAULTS) },
      rxNombuf: sum('rxNoMbuf'),
    };
  }

  queue(queue: number): QueueStats {
    const counters = this.#counters(queue);
    const { rxPackets = 0, rxBytes = 0, txCompleted = 0, txCompletedBytes = 0 } = counters;
    return {
      rx: { packets: rxPackets, bytes: rxBytes, errors: add(counters, RX_FAULTS) },
      tx: { packets: txCompleted, bytes: txCompletedBytes, errors: add(counters, TX_FAULTS) },
    };
  }

  /** Tx queues, rx queues, totals of all queues that ever were ("tx_", "rx_"), then the device ("device_"). Two of DPDK's names
   *  have a space. */
  extended(rxQueues: number, txQueues: number): [name: string, value: number][] {
    const list: [string, number][] = [];
    for (let queue = 0; queue < txQueues; queue++) {
      const counters = this.#counters(queue);
      const { packets, bytes, errors } = this.queue(queue).tx;
      const full = { ring: counters.txNoSlot ?? 0, channel: counters.ringFull ?? 0 };
      list.push(...usual(`tx_q${queue}_`, { packets, bytes, errors }, full, counters, 'tx'));
      list.push(...named(`tx_q${queue}_`, TX_MORE, counters));
    }
    for (let queue = 0; queue < rxQueues; queue++) {
      const counters = this.#counters(queue);
      const { packets, bytes, errors } = this.queue(queue).rx;
      const full = { ring: counters.rxMissed ?? 0, channel: counters.rxCompletionsDelayed ?? 0 };
      const rx = usual(`rx_q${queue}_`, { packets, bytes, errors }, full, counters, 'rx');
      // One of the generic ones in front has the name, too.
      list.push(...rx.filter(([name]) => name !== `rx_q${queue}_errors`));
      list.push(...named(`rx_q${queue}_`, RX_MORE, counters));
    }
    const all: Record<string, number> = {};
    for (let queue = 0; queue < this.#queues; queue++) {
      for (const [name, value] of Object.entries(this.#counters(queue))) all[name] = (all[name] ?? 0) + value;
    }
    list.push(...named('tx_', TX_MORE, all), ...named('rx_', RX_MORE, all), ...named('', TOTALS_MORE, all));
    list.push(...named('device_', DEVICE, since(this.#device(), this.#deviceBefore)));
    return list;
  }

  reset(): void {
    this.#before = [];
    this.#before = Array.from({ length: this.#queues }, (_, queue) => this.#counters(queue));
    this.#deviceBefore = this.#device();
  }

  #counters(queue: number): Counters {
    const now: Record<string, number> = { ...this.#channel(queue) };
    const port = this.#port(queue);
    for (const name of PORT_COUNTERS) {
      const at = (port + GUEST_PORT.at[name as keyof typeof GUEST_PORT.at]) >>> 2;
      now[name] = read64(this.#arena.u32, at);
    }
    return since(now, this.#before[queue] ?? {});
  }
}

const add = (counters: Counters, names: readonly string[]) =>
  names.reduce((total, name) => total + (counters[name] ?? 0), 0);

const since = (now: Counters, before: Counters): Counters =>
  Object.fromEntries(Object.entries(now).map(([name, value]) => [name, value - (before[name] ?? 0)]));

const named = (prefix: string, list: typeof RX_MORE, counters: Counters): [string, number][] =>
  list.map(([name, counter]) => [`${prefix}${name}`, counters[counter] ?? 0]);

/** The 15 that DPDK has of each queue, in its order. */
function usual(
  prefix: string,
  good: QueueStats['rx'],
  full: { readonly ring: number; readonly channel: number },
  counters: Counters,
  direction: 'rx' | 'tx',
): [string, number][] {
  return [
    [`${prefix}good_packets`, good.packets],
    [`${prefix}good_bytes`, good.bytes],
    [`${prefix}errors`, good.errors],
    [`${prefix}ring full`, full.ring],
    [`${prefix}channel full`, full.channel],
    ...PACKET_KINDS.map((kind): [string, number] => [`${prefix}${kind}`, counters[`${direction}_${kind}`] ?? 0]),
  ];
}
