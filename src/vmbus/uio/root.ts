// What differs between a machine directory and a kernel's own tree (kernel-root.ts), and nothing else: where the maps of a
// uio node and its interrupt descriptor are, and what a guest writes to signal.
import { fstatSync } from 'node:fs';
import type { Arena } from '../../memory/arena.js';
import { openShared } from '../../memory/os/memfd.js';
import { connectUnix } from '../../memory/os/socket.js';
import type { GuestMemory } from '../device.js';
import { UioGuestMemory } from './guest-memory.js';
import { IRQ_COMMAND } from './interrupts.js';

export interface UioRoot {
  /** Opens what map `index` of a uio node is mapped from (the caller closes it), and the byte offset in it. */
  openMap(uio: string, index: number, bytes: number): { fd: number; offset: number };
  /** Opens the rings' file of a channel's directory (the caller closes it); `bytes` is its size. */
  openRings(channel: string): { fd: number; bytes: number };
  /** Opens the interrupt descriptor, non-blocking: this is what opens the channel. */
  connect(uio: string): number;
  /** Channels with a monitor id trigger the host through the monitor page. Else they interrupt it, which costs a system
   *  call, but nobody waits for the host's next look. */
  readonly monitors: boolean;
  /** What to write for an interrupt to the host. */
  readonly signalCommand: number;
  /** The guest says how large the receive buffer is. */
  readonly sizesReceiveBuffer: boolean;
  /** The guest empties the rings before it connects. */
  readonly zeroesRings: boolean;
  /** Count of a uio node's interrupts right before connect(). `path`: the device's directory. */
  eventsBefore(path: string, uio: string): number;
  /** Memory that the host can find by its page frame numbers. */
  guestMemory(arena: Arena): GuestMemory;
}

/** A machine directory made by the embedded host: maps are files, the uio node is a Unix stream socket. */
export function machineRoot(root: string, monitors = false): UioRoot {
  return {
    monitors,
    openMap: (uio, index, bytes) => ({ fd: openShared(`${root}/dev/${uio}.map${index}`, bytes), offset: 0 }),
    openRings(channel) {
      const fd = openShared(`${channel}/ring`, 1);
      return { fd, bytes: fstatSync(fd).size };
    },
    connect: (uio) => connectUnix(`${root}/dev/${uio}`),
    signalCommand: IRQ_COMMAND.SIGNAL,
    sizesReceiveBuffer: true,
    zeroesRings: true,
    eventsBefore: () => 0,
    guestMemory: (arena) => new UioGuestMemory(arena),
  };
}
