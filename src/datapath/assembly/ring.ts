// The VMBus ring: both ends (facts/hyper-v-host.md 1). A packet is a multiple of 8 bytes plus an 8-byte footer, and
// indices are multiples of 8. A packet that crosses the end of the ring is put together, or taken apart, in a scratch
// area, so that everybody else sees one piece. Nothing that the peer can write is read twice.
import { copyBytes } from './copy';
import * as L from './generated';
import { scratch } from './scratch';

export const PAGE: u32 = 4096;
/** Larger packets are no sane peer's: the largest legal one names 562 ranges. */
export const MAX_PACKET: u32 = 32768;


/** In CHANNEL_END.selfCheck: our mask is 0, and nobody but us may change that. */
const UNMASKED: u32 = 2;

@inline
export function count(cell: u32, by: u32): void {
  store<u64>(cell, load<u64>(cell) + by);
}

/** The first error wins: what follows it is noise. */
export function ringFail(end: u32, error: u32, detail: u32): void {
  if (load<u32>(end, L.CHANNEL_END_RING_ERROR) == 0) {
    store<u32>(end, error, L.CHANNEL_END_RING_ERROR);
    store<u32>(end, detail, L.CHANNEL_END_RING_ERROR_DETAIL);
  }
}

export function endInit(end: u32): void {
  const writeRing = load<u32>(end, L.CHANNEL_END_WRITE_RING);
  const readRing = load<u32>(end, L.CHANNEL_END_READ_RING);
  let write = atomic.load<u32>(writeRing, L.WIRE_RING_CONTROL_IN);
  let read = atomic.load<u32>(readRing, L.WIRE_RING_CONTROL_OUT);
  store<u32>(end, 0, L.CHANNEL_END_RING_ERROR);
  store<u32>(end, 0, L.CHANNEL_END_RING_ERROR_DETAIL);
  store<u32>(end, 0, L.CHANNEL_END_NEED_SIGNAL);
  store<u32>(end, 0, L.CHANNEL_END_BLOCKED);
  store<u32>(end, load<u32>(end, L.CHANNEL_END_SELF_CHECK) & ~UNMASKED, L.CHANNEL_END_SELF_CHECK);
  // The peer may have written them: an index that is none must not be kept either.
  if (write >= load<u32>(end, L.CHANNEL_END_WRITE_SIZE) || (write & 7) != 0) {
    ringFail(end, L.RING_ERROR_INVALID_POINTER, write);
    write = 0;
  }
  if (read >= load<u32>(end, L.CHANNEL_END_READ_SIZE) || (read & 7) != 0) {
    ringFail(end, L.RING_ERROR_INVALID_POINTER, read);
    read = 0;
  }
  store<u32>(end, write, L.CHANNEL_END_WRITE_INDEX);
  store<u32>(end, write, L.CHANNEL_END_PUBLISHED);
  store<u32>(end, write, L.CHANNEL_END_PEER_READ);
  store<u32>(end, read, L.CHANNEL_END_READ_INDEX);
  ringMask(end);
}

export function ringMask(end: u32): void {
  const check = load<u32>(end, L.CHANNEL_END_SELF_CHECK);
  if (check & UNMASKED) {
    const mask = atomic.load<u32>(load<u32>(end, L.CHANNEL_END_READ_RING), L.WIRE_RING_CONTROL_INTERRUPT_MASK);
    if (mask != 0) ringFail(end, L.RING_ERROR_MASKED_EXTERNALLY, mask);
    store<u32>(end, check & ~UNMASKED, L.CHANNEL_END_SELF_CHECK);
  }
  atomic.store<u32>(load<u32>(end, L.CHANNEL_END_READ_RING), 1, L.WIRE_RING_CONTROL_INTERRUPT_MASK);
  atomic.store<u32>(load<u32>(end, L.CHANNEL_END_WRITE_RING), 0, L.WIRE_RING_CONTROL_PENDING_SEND_SIZE);
}

export function ringUnmask(end: u32): u32 {
  const blocked = load<u32>(end, L.CHANNEL_END_BLOCKED);
  if (blocked != 0) {
    // At least a quarter of the ring, so that the peer does not wake us for every packet it takes.
    const quarter = (load<u32>(end, L.CHANNEL_END_WRITE_SIZE) - 8) >>> 2;
    const wanted = blocked > quarter ? blocked : quarter;
    atomic.store<u32>(load<u32>(end, L.CHANNEL_END_WRITE_RING), wanted, L.WIRE_RING_CONTROL_PENDING_SEND_SIZE);
    if (ringRoom(end, wanted)) {
      store<u32>(end, 0, L.CHANNEL_END_BLOCKED);
      return 1;
    }
  }
  const check = load<u32>(end, L.CHANNEL_END_SELF_CHECK);
  if (check != 0) store<u32>(end, check | UNMASKED, L.CHANNEL_END_SELF_CHECK);
  // The atomic store is the barrier between unmasking and looking again.
  atomic.store<u32>(load<u32>(end, L.CHANNEL_END_READ_RING), 0, L.WIRE_RING_CONTROL_INTERRUPT_MASK);
  return ringReadable(end) != 0 ? 1 : 0;
}

export function ringReadable(end: u32): u32 {
  const write = atomic.load<u32>(load<u32>(end, L.CHANNEL_END_READ_RING), L.WIRE_RING_CONTROL_IN);
  const read = load<u32>(end, L.CHANNEL_END_READ_INDEX);
  return write >= read ? write - read : load<u32>(end, L.CHANNEL_END_READ_SIZE) - read + write;
}

@inline
function freeBytes(write: u32, read: u32, size: u32): u32 {
  return read > write ? read - write - 8 : size - (write - read) - 8;
}

/** Free bytes as last known; `fresh` looks at the peer's index again. 0 when that index is invalid. */
export function ringFree(end: u32, fresh: bool): u32 {
  const size = load<u32>(end, L.CHANNEL_END_WRITE_SIZE);
  if (fresh) {
    const read = atomic.load<u32>(load<u32>(end, L.CHANNEL_END_WRITE_RING), L.WIRE_RING_CONTROL_OUT);
    if (read >= size || (read & 7) != 0) {
      ringFail(end, L.RING_ERROR_INVALID_POINTER, read);
      return 0;
    }
    store<u32>(end, read, L.CHANNEL_END_PEER_READ);
  }
  return freeBytes(load<u32>(end, L.CHANNEL_END_WRITE_INDEX), load<u32>(end, L.CHANNEL_END_PEER_READ), size);
}

/** Is there room for `bytes`? The peer's index is loaded only when the cached one says no. */
@inline
export function ringRoom(end: u32, bytes: u32): bool {
  const known = freeBytes(load<u32>(end, L.CHANNEL_END_WRITE_INDEX), load<u32>(end, L.CHANNEL_END_PEER_READ), load<u32>(end, L.CHANNEL_END_WRITE_SIZE));
  return known >= bytes || ringFree(end, true) >= bytes;
}

/** Where to build a packet of `total` bytes (footer included) for which there is room. */
@inline
export function openPacket(end: u32, total: u32): u32 {
  const write = load<u32>(end, L.CHANNEL_END_WRITE_INDEX);
  return write + total <= load<u32>(end, L.CHANNEL_END_WRITE_SIZE) ? load<u32>(end, L.CHANNEL_END_WRITE_RING) + PAGE + write : (scratch + L.SCRATCH_WRITE_PACKET);
}

/** Writes the footer and moves the private index on; ringPublish makes it visible. */
@inline
export function closePacket(end: u32, at: u32, total: u32): void {
  const write = load<u32>(end, L.CHANNEL_END_WRITE_INDEX);
  const next = write + total;
  store<u64>(at + total - 8, <u64>write << 32);
  store<u32>(end, next < load<u32>(end, L.CHANNEL_END_WRITE_SIZE) ? next : wrapPacket(end, at, total), L.CHANNEL_END_WRITE_INDEX);
}

/** Takes a packet that reaches the end of the ring apart; returns the index behind it. */
function wrapPacket(end: u32, at: u32, total: u32): u32 {
  const write = load<u32>(end, L.CHANNEL_END_WRITE_INDEX);
  const data = load<u32>(end, L.CHANNEL_END_WRITE_RING) + PAGE;
  const first = load<u32>(end, L.CHANNEL_END_WRITE_SIZE) - write;
  if (at == (scratch + L.SCRATCH_WRITE_PACKET)) {
    copyBytes(data + write, at, first);
    copyBytes(data, at + first, total - first);
  }
  return total - first;
}

/** Publishes what was written since the last time: at most one signal, and only from empty to non-empty. */
export function ringPublish(end: u32): void {
  const write = load<u32>(end, L.CHANNEL_END_WRITE_INDEX);
  const before = load<u32>(end, L.CHANNEL_END_PUBLISHED);
  if (write == before) return;
  const ring = load<u32>(end, L.CHANNEL_END_WRITE_RING);
  store<u32>(end, write, L.CHANNEL_END_PUBLISHED);
  atomic.store<u32>(ring, write, L.WIRE_RING_CONTROL_IN);
  if (atomic.load<u32>(ring, L.WIRE_RING_CONTROL_INTERRUPT_MASK) == 0 && atomic.load<u32>(ring, L.WIRE_RING_CONTROL_OUT) == before) {
    store<u32>(end, 1, L.CHANNEL_END_NEED_SIGNAL);
    count(end + L.CHANNEL_END_SIGNALS, 1);
  }
}

@inline
export function storeDescriptor(at: u32, type: u32, dataOffset: u32, bytes: u32, flags: u32, idLow: u32, idHigh: u32): void {
  const low = type | (dataOffset << 13); // dataOffset / 8 << 16
  const high = (bytes >>> 3) | (flags << 16);
  store<u64>(at, <u64>low | (<u64>high << 32));
  store<u64>(at, <u64>idLow | (<u64>idHigh << 32), L.WIRE_PACKET_DESCRIPTOR_TRANSACTION_ID);
}

/** A control-path packet, published at once. Payload is padded with zeros to 8 bytes. */
export function ringSend(end: u32, type: u32, flags: u32, idLow: u32, idHigh: u32, payload: u32, bytes: u32): u32 {
  const padded = (bytes + 7) & ~7;
  const total = L.SIZEOF_WIRE_PACKET_DESCRIPTOR + padded + 8;
  if (total > MAX_PACKET || load<u32>(end, L.CHANNEL_END_RING_ERROR) != 0) return 0;
  if (!ringRoom(end, total)) {
    count(end + L.CHANNEL_END_RING_FULL, 1);
    return 0;
  }
  const at = openPacket(end, total);
  storeDescriptor(at, type, L.SIZEOF_WIRE_PACKET_DESCRIPTOR, L.SIZEOF_WIRE_PACKET_DESCRIPTOR + padded, flags, idLow, idHigh);
  if (padded > bytes) store<u64>(at + L.SIZEOF_WIRE_PACKET_DESCRIPTOR + padded - 8, 0);
  copyBytes(at + L.SIZEOF_WIRE_PACKET_DESCRIPTOR, payload, bytes);
  closePacket(end, at, total);
  count(end + L.CHANNEL_END_RING_PACKETS_OUT, 1);
  ringPublish(end);
  return 1;
}

// The packet that nextPacket() found: private copies of its descriptor.
export let packetAt: u32 = 0;
export let packetType: u32 = 0;
export let packetFlags: u32 = 0;
export let packetData: u32 = 0; // offset of the payload
export let packetBytes: u32 = 0; // without footer
export let packetNext: u32 = 0; // read index behind it

/** Checks the writer's index. Returns it, or the read index (nothing to read) when it is invalid. */
export function readLimit(end: u32): u32 {
  const write = atomic.load<u32>(load<u32>(end, L.CHANNEL_END_READ_RING), L.WIRE_RING_CONTROL_IN);
  if (write < load<u32>(end, L.CHANNEL_END_READ_SIZE) && (write & 7) == 0) return write;
  ringFail(end, L.RING_ERROR_INVALID_POINTER, write);
  return load<u32>(end, L.CHANNEL_END_READ_INDEX);
}

/** Takes the descriptor of the packet at `read`; false = corrupt ring, the error is set. */
export function nextPacket(end: u32, read: u32, write: u32): bool {
  const size = load<u32>(end, L.CHANNEL_END_READ_SIZE);
  const data = load<u32>(end, L.CHANNEL_END_READ_RING) + PAGE;
  const available = write >= read ? write - read : size - read + write;
  if (available < L.SIZEOF_WIRE_PACKET_DESCRIPTOR) {
    ringFail(end, L.RING_ERROR_LENGTH, available);
    return false;
  }
  // Indices are multiples of 8 and so is the size: an 8-byte word never wraps.
  const first = load<u64>(data + read);
  const low = <u32>first;
  const high = <u32>(first >>> 32);
  const offset = (low >>> 16) << 3;
  const bytes = (high & 0xffff) << 3;
  packetType = low & 0xffff;
  packetFlags = high >>> 16;
  if (offset < L.SIZEOF_WIRE_PACKET_DESCRIPTOR) {
    ringFail(end, L.RING_ERROR_SHORT_DESCRIPTOR, offset);
    return false;
  }
  if (bytes < offset || bytes + 8 > available || bytes > MAX_PACKET) {
    ringFail(end, L.RING_ERROR_LENGTH, bytes);
    return false;
  }
  if (packetFlags > 1) {
    ringFail(end, L.RING_ERROR_FLAGS, packetFlags);
    return false;
  }
  if (packetType != 6 && packetType != 7 && packetType != 9 && packetType != 11) {
    ringFail(end, L.RING_ERROR_TYPE, packetType);
    return false;
  }
  let at = data + read;
  if (read + bytes > size) {
    const part = size - read;
    copyBytes(scratch + L.SCRATCH_READ_PACKET, at, part);
    copyBytes(scratch + L.SCRATCH_READ_PACKET + part, data, bytes - part);
    at = scratch + L.SCRATCH_READ_PACKET;
  }
  packetAt = at;
  packetData = offset;
  packetBytes = bytes;
  let next = read + bytes + 8;
  if (next >= size) next -= size;
  packetNext = next;
  return true;
}

/** Gives the read bytes back, and asks for a signal when the writer waits for just that much room. */
export function ringRelease(end: u32, read: u32): void {
  const before = load<u32>(end, L.CHANNEL_END_READ_INDEX);
  if (read == before) return;
  const ring = load<u32>(end, L.CHANNEL_END_READ_RING);
  const size = load<u32>(end, L.CHANNEL_END_READ_SIZE);
  store<u32>(end, read, L.CHANNEL_END_READ_INDEX);
  atomic.store<u32>(ring, read, L.WIRE_RING_CONTROL_OUT);
  // Some peers write their size minus one, hence the mask.
  const pending = atomic.load<u32>(ring, L.WIRE_RING_CONTROL_PENDING_SEND_SIZE) & ~7;
  if (pending == 0) return;
  const write = atomic.load<u32>(ring, L.WIRE_RING_CONTROL_IN);
  if (write >= size) return;
  if (freeBytes(write, before, size) < pending && freeBytes(write, read, size) >= pending) {
    store<u32>(end, 1, L.CHANNEL_END_NEED_SIGNAL);
    count(end + L.CHANNEL_END_SIGNALS, 1);
  }
}
