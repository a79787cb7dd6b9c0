// Control-path packets for TypeScript: EVENT records in the channel's event buffer.
import { copyBytes } from './copy';
import * as L from './generated';

// Both kinds of channel keep the event cells right behind the common prefix.
/** Appends a record; false = the buffer is full. Payloads that could never fit are cut to half the buffer. */
export function putEvent(channel: u32, kind: u32, idLow: u32, idHigh: u32, a: u32, b: u32, payload: u32, bytes: u32): bool {
  const capacity = load<u32>(channel, L.GUEST_QUEUE_EVENT_BYTES);
  const used = load<u32>(channel, L.GUEST_QUEUE_EVENT_USED);
  if (bytes > capacity >>> 1) bytes = capacity >>> 1;
  const total = L.SIZEOF_EVENT + ((bytes + 7) & ~7);
  if (used + total > capacity) return false;
  const at = load<u32>(channel, L.GUEST_QUEUE_EVENTS) + used;
  store<u32>(at, kind, L.EVENT_KIND);
  store<u32>(at, bytes, L.EVENT_BYTES);
  store<u32>(at, idLow, L.EVENT_ID_LOW);
  store<u32>(at, idHigh, L.EVENT_ID_HIGH);
  store<u32>(at, a, L.EVENT_A);
  store<u32>(at, b, L.EVENT_B);
  copyBytes(at + L.SIZEOF_EVENT, payload, bytes);
  store<u32>(channel, used + total, L.GUEST_QUEUE_EVENT_USED);
  return true;
}
