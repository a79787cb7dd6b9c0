// Which queue a packet is sent on (facts/linux-guest.md 3.3): a hash of its flow, and the host's table. A multiplicative hash and not
// RSS's: nobody has to come to the same value, and it takes a third of the time.
import * as L from './generated';
import { family, fragment, l3, l4, parseHead, PROTOCOL_TCP, PROTOCOL_UDP, protocol } from './headers';
import { scratch } from './scratch';

const SPREAD: u64 = 0x9e3779b97f4a7c15;
const MIX: u64 = 0xff51afd7ed558ccd;

let hash: u64 = 0;

@inline
function add(value: u64): void {
  hash = (hash ^ value) * SPREAD;
  hash ^= hash >>> 32;
}

/** The parsed packet's protocol is to be hashed with its ports, which are there. */
@inline
function withPorts(levels: u32, bytes: u32): bool {
  let bit: u32 = 0;
  if (protocol == PROTOCOL_TCP) bit = family == 4 ? L.STEER_PORTS_TCP4 : L.STEER_PORTS_TCP6;
  else if (protocol == PROTOCOL_UDP) bit = family == 4 ? L.STEER_PORTS_UDP4 : L.STEER_PORTS_UDP6;
  // All fragments of a packet take one way, and only the first has ports.
  return (levels & bit) != 0 && !fragment && l4 + 4 <= bytes;
}

/** Entry of the table for a packet whose first `bytes` bytes lie at `at`. */
function entryOf(at: u32, bytes: u32, total: u32, levels: u32, seed: u64): u32 {
  hash = seed;
  if (parseHead(at, bytes, total)) {
    if (family == 4) add(load<u64>(at + l3, 12));
    else {
      add(load<u64>(at + l3, 8));
      add(load<u64>(at + l3, 16));
      add(load<u64>(at + l3, 24));
      add(load<u64>(at + l3, 32));
    }
    if (withPorts(levels, bytes)) add(load<u32>(at + l4));
  } else if (bytes >= 12) {
    add(load<u64>(at));
    add(load<u32>(at, 8));
  }
  hash *= MIX;
  return <u32>(hash >>> 33) & (L.STEER_ENTRIES - 1);
}

export function steer(steering: u32, handles: u32, n: u32, sorted: u32, counts: u32): void {
  if (n > L.STEER_BURST) n = L.STEER_BURST;
  const levels = load<u32>(steering, L.STEERING_LEVELS);
  const seed = load<u64>(steering, L.STEERING_SEED_LOW);
  const table = load<u32>(steering, L.STEERING_TABLE);
  const queues = scratch + L.SCRATCH_RANGES; // of each packet
  memory.fill(counts, 0, L.STEER_QUEUES << 2);
  for (let i: u32 = 0; i < n; i++) {
    const mbuf = load<u32>(handles + (i << 2));
    const entry = entryOf(load<u32>(mbuf, L.MBUF_DATA), load<u32>(mbuf, L.MBUF_DATA_LENGTH), load<u32>(mbuf, L.MBUF_PACKET_LENGTH), levels, seed);
    const queue = load<u32>(table + (entry << 2)) & (L.STEER_QUEUES - 1);
    store<u8>(queues + i, <u8>queue);
    const counter = counts + (queue << 2);
    store<u32>(counter, load<u32>(counter) + 1);
  }
  // Where each queue's next packet goes.
  const places = queues + L.STEER_BURST;
  let place = sorted;
  for (let queue: u32 = 0; queue < L.STEER_QUEUES; queue++) {
    store<u32>(places + (queue << 2), place);
    place += load<u32>(counts + (queue << 2)) << 2;
  }
  for (let i: u32 = 0; i < n; i++) {
    const at = places + ((<u32>load<u8>(queues + i)) << 2);
    const to = load<u32>(at);
    store<u32>(to, load<u32>(handles + (i << 2)));
    store<u32>(at, to + 4);
  }
}
