// Where a part of a guest's page lies with us: in a mapping, or in STAGING, where it was copied before the poll.
import * as L from './generated';
import { packetNext } from './ring';

/** Our address of a guest page by a table of `n` GPA_REGIONs, or 0. */
export function findPage(table: u32, n: u32, low: u32, high: u32): u32 {
  const pfn = (<u64>high << 32) | low;
  for (let i: u32 = 0; i < n; i++) {
    const region = table + i * L.SIZEOF_GPA_REGION;
    const first = (<u64>load<u32>(region, L.GPA_REGION_PFN_HIGH) << 32) | load<u32>(region, L.GPA_REGION_PFN_LOW);
    const page = pfn - first;
    if (pfn >= first && page < load<u32>(region, L.GPA_REGION_PAGES)) return load<u32>(region, L.GPA_REGION_ADDRESS) + (<u32>page << 12);
  }
  return 0;
}

/** In place of an address: the guest has no such bytes. */
export const UNREADABLE: u32 = 1;
/** What user space cannot map on any machine, for page numbers that are beyond it. */
const NOWHERE: u64 = 1 << 63;
const VECTOR: u32 = 16; // struct iovec

let staging: u32 = 0; // STAGING that the packets at hand use; 0 = what is not mapped is missing
let collecting: bool = false;
let cursor: u32 = 0; // next STAGED_PAGE to be taken

/** Pages that are not mapped are noted from here on. */
export function collectStaged(at: u32): void {
  staging = at;
  collecting = true;
  store<u32>(at, 0, L.STAGING_CHANNEL);
  store<u32>(at, 0, L.STAGING_DATA_USED);
  store<u32>(at, 0, L.STAGING_PAGE_COUNT);
  store<u32>(at, 0, L.STAGING_VECTOR_COUNT);
  store<u32>(at, 0, L.STAGING_UNKNOWN);
}

/** They are taken from what was copied for this channel, once. Returns how far the poll may go; NO_SECTION = as it likes. */
export function takeStaged(at: u32, ch: u32): u32 {
  if (load<u32>(at, L.STAGING_CHANNEL) != ch) return L.NO_SECTION;
  store<u32>(at, 0, L.STAGING_CHANNEL);
  staging = at;
  collecting = false;
  cursor = 0;
  return load<u32>(at, L.STAGING_END);
}

export function leaveStaged(): void {
  staging = 0;
}

@inline
function stagedPage(index: u32): u32 {
  return load<u32>(staging, L.STAGING_PAGES) + index * L.SIZEOF_STAGED_PAGE;
}

/** Address of bytes whose page is not mapped, 0 = not copied either, or UNREADABLE. */
export function stagedPart(low: u32, high: u32, offset: u32, bytes: u32): u32 {
  if (staging == 0) return 0;
  return collecting ? collect(low, high, offset, bytes) : take(low, high, offset, bytes);
}

/** Only what was copied for the packet at hand, and for these very words of it: the guest may have changed it since. */
function take(low: u32, high: u32, offset: u32, bytes: u32): u32 {
  const n = load<u32>(staging, L.STAGING_PAGE_COUNT);
  while (cursor < n && load<u32>(stagedPage(cursor), L.STAGED_PAGE_PACKET) != packetNext) cursor++;
  if (cursor == n) return 0;
  const at = stagedPage(cursor);
  if (load<u32>(at, L.STAGED_PAGE_PFN_LOW) != low || load<u32>(at, L.STAGED_PAGE_PFN_HIGH) != high) return 0;
  if (load<u32>(at, L.STAGED_PAGE_OFFSET) != offset || load<u32>(at, L.STAGED_PAGE_BYTES) != bytes) return 0;
  cursor++;
  const address = load<u32>(at, L.STAGED_PAGE_ADDRESS);
  return address != 0 ? address : UNREADABLE;
}

/** 0 = no room. */
function collect(low: u32, high: u32, offset: u32, bytes: u32): u32 {
  const n = load<u32>(staging, L.STAGING_PAGE_COUNT);
  const used = load<u32>(staging, L.STAGING_DATA_USED);
  if (n == load<u32>(staging, L.STAGING_PAGE_CAPACITY) || used + bytes > load<u32>(staging, L.STAGING_DATA_BYTES)) return 0;
  if (load<u32>(staging, L.STAGING_UNKNOWN) == 0) {
    if (findPage(load<u32>(staging, L.STAGING_KNOWN), load<u32>(staging, L.STAGING_KNOWN_COUNT), low, high) == 0) {
      store<u32>(staging, 1, L.STAGING_UNKNOWN);
      store<u32>(staging, low, L.STAGING_UNKNOWN_LOW);
      store<u32>(staging, high, L.STAGING_UNKNOWN_HIGH);
    }
  }
  const at = stagedPage(n);
  const address = load<u32>(staging, L.STAGING_DATA) + used;
  store<u32>(at, packetNext, L.STAGED_PAGE_PACKET);
  store<u32>(at, low, L.STAGED_PAGE_PFN_LOW);
  store<u32>(at, high, L.STAGED_PAGE_PFN_HIGH);
  store<u32>(at, offset, L.STAGED_PAGE_OFFSET);
  store<u32>(at, bytes, L.STAGED_PAGE_BYTES);
  store<u32>(at, address, L.STAGED_PAGE_ADDRESS);
  store<u32>(at, addVector(n, low, high, offset, bytes), L.STAGED_PAGE_VECTOR);
  store<u32>(staging, n + 1, L.STAGING_PAGE_COUNT);
  store<u32>(staging, used + bytes, L.STAGING_DATA_USED);
  return address;
}

/** Pages of one packet that follow each other in the guest are one vector. Returns its index. */
function addVector(page: u32, low: u32, high: u32, offset: u32, bytes: u32): u32 {
  const count = load<u32>(staging, L.STAGING_VECTOR_COUNT);
  const pfn = (<u64>high << 32) | low;
  const address = pfn >>> 51 != 0 ? NOWHERE : (pfn << 12) + offset;
  const vectors = load<u32>(staging, L.STAGING_VECTORS);
  if (page != 0 && address != NOWHERE && load<u32>(stagedPage(page - 1), L.STAGED_PAGE_PACKET) == packetNext) {
    const last = vectors + (count - 1) * VECTOR;
    if (load<u64>(last) + load<u64>(last, 8) == address) {
      store<u64>(last, load<u64>(last, 8) + bytes, 8);
      return count - 1;
    }
  }
  const at = vectors + count * VECTOR;
  store<u64>(at, address);
  store<u64>(at, <u64>bytes, 8);
  store<u32>(staging, count + 1, L.STAGING_VECTOR_COUNT);
  return count;
}
