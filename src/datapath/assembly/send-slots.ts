// Sends in flight: a slot for each, which its transaction names, and the send-buffer sections that they copy to.
import * as L from './generated';
import { freeChain } from './pool';
import { count } from './ring';

export const REFUSED: u32 = 0xffffffff;

/** Takes a send slot; REFUSED when every one is in flight. */
export function takeSlot(q: u32): u32 {
  const free = load<u32>(q, L.GUEST_QUEUE_FREE_SLOT_COUNT);
  if (free == 0) {
    count(q + L.GUEST_QUEUE_TX_NO_SLOT, 1);
    return REFUSED;
  }
  store<u32>(q, free - 1, L.GUEST_QUEUE_FREE_SLOT_COUNT);
  return load<u32>(load<u32>(q, L.GUEST_QUEUE_FREE_SLOTS) + ((free - 1) << 2));
}

@inline
function slotAt(q: u32, slot: u32): u32 {
  return load<u32>(q, L.GUEST_QUEUE_SLOTS) + slot * L.SIZEOF_TX_SLOT;
}

/** Says what the slot holds; returns its transaction's number. */
@inline
export function fillSlot(q: u32, slot: u32, section: u32, mbuf: u32, packets: u32, bytes: u32): u32 {
  const at = slotAt(q, slot);
  store<u32>(at, 1, L.TX_SLOT_BUSY);
  store<u32>(at, section, L.TX_SLOT_SECTION);
  store<u32>(at, mbuf, L.TX_SLOT_MBUF);
  store<u32>(at, packets, L.TX_SLOT_PACKETS);
  store<u32>(at, bytes, L.TX_SLOT_BYTES);
  return slot | (load<u32>(at, L.TX_SLOT_GENERATION) << 16);
}

/** The send of transaction `id` is over: frees what it held. False = no such send in flight. */
export function finishSend(q: u32, id: u32, success: bool): bool {
  const slot = id & 0xffff;
  if (slot >= load<u32>(q, L.GUEST_QUEUE_SLOT_COUNT)) return false;
  const at = slotAt(q, slot);
  if (load<u32>(at, L.TX_SLOT_BUSY) == 0 || load<u32>(at, L.TX_SLOT_GENERATION) != id >>> 16) return false;
  const packets = load<u32>(at, L.TX_SLOT_PACKETS);
  if (success) {
    count(q + L.GUEST_QUEUE_TX_COMPLETED, packets);
    count(q + L.GUEST_QUEUE_TX_COMPLETED_BYTES, load<u32>(at, L.TX_SLOT_BYTES));
  } else count(q + L.GUEST_QUEUE_TX_FAILED, packets);
  releaseSlot(q, slot);
  return true;
}

/** Takes takeSlot() back. */
@inline
export function returnSlot(q: u32): void {
  store<u32>(q, load<u32>(q, L.GUEST_QUEUE_FREE_SLOT_COUNT) + 1, L.GUEST_QUEUE_FREE_SLOT_COUNT);
}

function releaseSlot(q: u32, slot: u32): void {
  const at = slotAt(q, slot);
  const section = load<u32>(at, L.TX_SLOT_SECTION);
  store<u32>(at, 0, L.TX_SLOT_BUSY);
  store<u32>(at, (load<u32>(at, L.TX_SLOT_GENERATION) + 1) & 0xffff, L.TX_SLOT_GENERATION);
  if (section != L.NO_SECTION) freeSection(q, section);
  const mbuf = load<u32>(at, L.TX_SLOT_MBUF);
  if (mbuf != 0) freeChain(mbuf);
  const free = load<u32>(q, L.GUEST_QUEUE_FREE_SLOT_COUNT);
  store<u32>(load<u32>(q, L.GUEST_QUEUE_FREE_SLOTS) + (free << 2), slot);
  store<u32>(q, free + 1, L.GUEST_QUEUE_FREE_SLOT_COUNT);
}

@inline
function freeSection(q: u32, section: u32): void {
  const free = load<u32>(q, L.GUEST_QUEUE_FREE_SECTION_COUNT);
  store<u32>(load<u32>(q, L.GUEST_QUEUE_FREE_SECTIONS) + (free << 2), section);
  store<u32>(q, free + 1, L.GUEST_QUEUE_FREE_SECTION_COUNT);
}

/** Sends in flight. */
@inline
export function outstanding(q: u32): u32 {
  return load<u32>(q, L.GUEST_QUEUE_SLOT_COUNT) - load<u32>(q, L.GUEST_QUEUE_FREE_SLOT_COUNT);
}

/** Takes a free section and opens it; NO_SECTION = none is free. */
@inline
export function openSection(q: u32): u32 {
  const free = load<u32>(q, L.GUEST_QUEUE_FREE_SECTION_COUNT);
  if (free == 0) return L.NO_SECTION;
  const section = load<u32>(load<u32>(q, L.GUEST_QUEUE_FREE_SECTIONS) + ((free - 1) << 2));
  store<u32>(q, free - 1, L.GUEST_QUEUE_FREE_SECTION_COUNT);
  store<u32>(q, section, L.GUEST_QUEUE_SECTION);
  store<u32>(q, 0, L.GUEST_QUEUE_SECTION_USED);
  store<u32>(q, 0, L.GUEST_QUEUE_SECTION_PACKETS);
  store<u32>(q, 0, L.GUEST_QUEUE_SECTION_BYTES);
  return section;
}

/** Gives back all that sends in flight and the open section hold: the host has closed, or will never answer. */
export function abandonSends(q: u32): void {
  const slots = load<u32>(q, L.GUEST_QUEUE_SLOT_COUNT);
  for (let slot: u32 = 0; slot < slots; slot++) {
    if (load<u32>(slotAt(q, slot), L.TX_SLOT_BUSY)) releaseSlot(q, slot);
  }
  const section = load<u32>(q, L.GUEST_QUEUE_SECTION);
  if (section != L.NO_SECTION) freeSection(q, section);
  store<u32>(q, L.NO_SECTION, L.GUEST_QUEUE_SECTION);
}
