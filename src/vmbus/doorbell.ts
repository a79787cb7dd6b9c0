// How a guest tells the host that a channel has news, besides the interrupt itself: trigger bits of the monitor page, which
// the host looks at from time to time, or bits of the interrupt page (facts/hyper-v-host.md 2.4, dpdk.md 1.3 and 1.4).
import type { Arena } from '../memory/arena.js';
import { MonitorPage } from '../wire/vmbus.js';

export const MONITOR_IDS = 128;
/** What hosts write for network channels: 100 us, in units of 100 ns (facts/hyper-v-host.md 2.4). */
const USUAL_LATENCY = 1000;
const UNITS_PER_MS = 10_000;
/** Where each side's bits begin in the interrupt page, one bit a channel id. */
const TO_GUEST = 0;
const TO_HOST = 2048;

const trigger = (page: number, id: number): number => (page + MonitorPage.offset.pending0 + (id >>> 5) * 8) >>> 2;
const bitOf = (id: number): number => (1 << (id & 31)) >>> 0;

/** Guest: the host sees it within the monitor's latency. */
export function setTrigger(arena: Arena, page: number, monitorId: number): void {
  Atomics.or(arena.u32, trigger(page, monitorId), bitOf(monitorId));
}

/** Host: true once after each setTrigger. */
export function takeTrigger(arena: Arena, page: number, monitorId: number): boolean {
  return takeBit(arena, trigger(page, monitorId), bitOf(monitorId));
}

/** Host, when it offers a channel with this monitor id: the usual latency. */
export function initLatency(arena: Arena, page: number, monitorId: number): void {
  setLatency(arena, page, monitorId, USUAL_LATENCY);
}

/** Guest: the host looks at this monitor about every `units` * 100 ns. */
export function setLatency(arena: Arena, page: number, monitorId: number, units: number): void {
  arena.u16[(page + MonitorPage.offset.latency + monitorId * 2) >>> 1] = units;
}

/** How long the host may go without looking at this monitor, in ms. A guest that writes 0 means the usual one, as without any. */
export function latencyMs(arena: Arena, page: number, monitorId: number | undefined): number {
  if (monitorId === undefined) return USUAL_LATENCY / UNITS_PER_MS;
  const units = arena.u16[(page + MonitorPage.offset.latency + monitorId * 2) >>> 1]!;
  return (units === 0 ? USUAL_LATENCY : units) / UNITS_PER_MS;
}

/** Sets a channel's bit in the interrupt page, in the half that the guest or the host reads. */
export function setInterruptBit(arena: Arena, page: number, to: 'guest' | 'host', relid: number): void {
  Atomics.or(arena.u32, interrupt(page, to, relid), bitOf(relid));
}

/** True once after each setInterruptBit. */
export function takeInterruptBit(arena: Arena, page: number, to: 'guest' | 'host', relid: number): boolean {
  return takeBit(arena, interrupt(page, to, relid), bitOf(relid));
}

const interrupt = (page: number, to: 'guest' | 'host', relid: number): number =>
  (page + (to === 'host' ? TO_HOST : TO_GUEST) + (relid >>> 5) * 4) >>> 2;

function takeBit(arena: Arena, at: number, bit: number): boolean {
  if ((Atomics.load(arena.u32, at) & bit) === 0) return false;
  Atomics.and(arena.u32, at, ~bit >>> 0);
  return true;
}
