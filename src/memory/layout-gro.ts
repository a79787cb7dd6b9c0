// Generic receive offload: what a stage remembers between two bursts of a poll. One worker uses it.
import { cells } from './cells.js';

/** The stage; behind it GRO_BUCKETS GRO_BUCKET, then GRO_BUCKETS * GRO_BUCKET_FLOWS GRO_FLOW. */
export const GRO_STAGE = cells('GRO_STAGE', {
  options: 'u32', // GRO_OPTION
  held: 'u32', // flows that wait for more
  poll: 'u32', // number of this poll
  packets: 'u64', // that came in
  merged: 'u64', // of those, packets that went into another one
  coalesced: 'u64', // packets handed out that are made of several
  evicted: 'u64', // flows handed out early, as another one needed the place
  checksums: 'u64', // transport checksums that the device had not looked at
  badChecksums: 'u64', // of those and of what the device said: wrong ones
});

/** Buckets of a stage, by the low bits of the RSS hash, and flows that one holds: those of a NAPI instance. */
export const GRO_BUCKETS = 8;
export const GRO_BUCKET_FLOWS = 8;
/** Packets that a stage hands out at most in one call beyond those that it got. */
export const GRO_HELD_MAX: number = GRO_BUCKETS * GRO_BUCKET_FLOWS;

type Places = { readonly [place in `flow${0 | 1 | 2 | 3 | 4 | 5 | 6 | 7}`]: 'u32' };
const places = Object.fromEntries(Array.from({ length: GRO_BUCKET_FLOWS }, (_, i) => [`flow${i}`, 'u32']));

/** Its GRO_FLOW addresses: `count` that are held, oldest first, then the free ones. */
export const GRO_BUCKET = cells('GRO_BUCKET', { ...(places as Places), count: 'u32' });

/** A packet that is held, with what was appended to it. */
export const GRO_FLOW = cells('GRO_FLOW', {
  kindLow: 'u32', // what must be equal before anybody looks at the headers: offsets and protocols,
  kindHigh: 'u32', // the VLAN tag beside the data,
  ports: 'u32', // as they lie in the packet,
  hash: 'u32', // and the RSS hash or 0
  mbuf: 'u32',
  last: 'u32', // its last segment
  count: 'u32', // segments of the network that it is made of
  size: 'u32', // bytes of payload in each but the last
  sequence: 'u32', // TCP: of the next byte
  poll: 'u32', // in which it began
  fixedId: 'u32', // 1: all IPv4 identifications are the same; 0: they count up
});

/** Bytes of a stage with all that is behind it. */
export const GRO_BYTES: number = GRO_STAGE.bytes + GRO_BUCKETS * (GRO_BUCKET.bytes + GRO_BUCKET_FLOWS * GRO_FLOW.bytes);

/** Bits of GRO_STAGE.options. */
export const GRO_OPTION = {
  UDP: 0x1, // datagrams of a flow are merged as well (the kernel's rx-udp-gro-forwarding)
} as const;

export const GRO_LAYOUTS = [GRO_STAGE, GRO_BUCKET, GRO_FLOW] as const;
