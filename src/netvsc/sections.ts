// How many sections the buffers that host and guest share have, and whose they are.
import type { OpenChannel } from '../vmbus/device.js';
import type { Sections } from './nvsp.js';
import type { QueueMemory } from './queue.js';
import { maxReceiveBufferBytes } from './types.js';

/** Sections of that size in a send buffer of which `used` bytes are used. */
export const sendSectionsIn = ({ sendBuffer }: OpenChannel, used: number, sectionBytes: number): number =>
  Math.floor(Math.min(used, sendBuffer.bytes) / sectionBytes);

/** Most receive sections of the present size that there can be; `sized`: the device opens buffers of any size. */
export function mostReceiveSections(
  { receiveBuffer }: OpenChannel,
  { sections, sectionBytes }: Sections,
  nvspVersion: number,
  sized: boolean,
): number {
  if (!sized) return sections;
  const most = Math.min(receiveBuffer.bytes, maxReceiveBufferBytes(nvspVersion));
  return Math.max(sections, Math.floor(most / sectionBytes));
}

/** Divides send sections from `first` on among the first `share` queues; the last of them takes the remainder, the others have none. */
export function divideSendSections(queues: readonly QueueMemory[], share: number, first: number, sections: number) {
  const each = Math.floor((sections - first) / share);
  let next = first;
  for (const [i, queue] of queues.entries()) {
    const count = i >= share ? 0 : i === share - 1 ? sections - next : each;
    queue.ownSections(next, count);
    next += count;
  }
}
