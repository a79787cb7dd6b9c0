// The interrupt descriptor and the doorbells of a device, for any thread of the guest: the device object belongs to the thread
// that opened it, its descriptor and pages do not.
import type { Arena } from '../../memory/arena.js';
import { DOORBELL } from '../../memory/layout.js';
import { ERRNO } from '../../memory/os/libc.js';
import { receiveWord, sendWord } from '../../memory/os/socket.js';
import { setInterruptBit, setTrigger } from '../doorbell.js';

/** Words that one takeWords() reads; more than these keep the descriptor readable. */
const READS_MAX = 64;
/** No word was there. */
export const NO_WORD = -1;
/** Closed; EIO of a kernel after rescind; ECONNRESET; or a stream that does not consist of words. */
export const GONE = -2;

export interface Doorbell {
  readonly fd: number;
  readonly command: number;
  /** Arena addresses. */
  readonly interruptPage: number;
  readonly monitorPage: number;
  readonly relid: number;
  readonly monitorId: number | undefined;
}

/** Fills DOORBELL cells. */
export function setDoorbell(arena: Arena, address: number, bell: Doorbell): void {
  const { monitorId } = bell;
  const values = {
    ...{ fd: bell.fd, command: bell.command, interruptPage: bell.interruptPage, relid: bell.relid },
    ...{ monitorPage: monitorId === undefined ? 0 : bell.monitorPage, monitorId: monitorId ?? 0 },
  };
  for (const [cell, value] of Object.entries(values))
    arena.u32[(address + DOORBELL.at[cell as keyof typeof values]) >>> 2] = value;
}

/** Tells the host that the channel has news: a trigger bit when it has a monitor, else an interrupt. */
export function ringDoorbell(arena: Arena, address: number): void {
  const { u32 } = arena;
  const { at } = DOORBELL;
  const monitorPage = u32[(address + at.monitorPage) >>> 2]!;
  if (monitorPage !== 0) {
    setTrigger(arena, monitorPage, u32[(address + at.monitorId) >>> 2]!);
    return;
  }
  setInterruptBit(arena, u32[(address + at.interruptPage) >>> 2]!, 'host', u32[(address + at.relid) >>> 2]!);
  // When the socket is full the host has interrupts to read already; when it is closed, takeInterrupts() says so.
  sendWord(u32[(address + at.fd) >>> 2]!, u32[(address + at.command) >>> 2]!);
}

/** Takes the waiting words of an interrupt descriptor: the last one (the host's running count), NO_WORD or GONE. */
export function takeWords(fd: number): number {
  let last = NO_WORD;
  for (let i = 0; i < READS_MAX; i++) {
    const word = receiveWord(fd);
    if (word === -ERRNO.EAGAIN!) break;
    if (word < 0) return GONE;
    last = word;
  }
  return last;
}
