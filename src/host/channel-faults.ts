// What ends a channel, in words.
import type { Channel } from '../vmbus/channel.js';
import { WireError } from '../wire/struct.js';
import { ChannelFault } from './netvsp.js';

/** The reason that is shown: a guest's fault as it is, anything else marked as ours. */
export function faultText(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return error instanceof ChannelFault || error instanceof WireError ? text : `internal error: ${text}`;
}

/** Throws ChannelFault when the data path found the ring corrupt. */
export function checkRing(channel: Channel): void {
  const fault = channel.error;
  if (fault) throw new ChannelFault(`ring: ${fault.name}, value 0x${fault.detail.toString(16)}`);
}

export function notInFlight(low: number, high: number): ChannelFault {
  return new ChannelFault(`completion for transaction 0x${high.toString(16)}:${low.toString(16)}: not in flight`);
}
