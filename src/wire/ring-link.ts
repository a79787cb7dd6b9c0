// What two processes say to each other on the sockets of a net_ring between them (drivers/ring/session.ts).
import { struct, u32 } from './struct.js';

const MAGIC = 0x676e724e; // "Nrng"
const VERSION = 1;

export const RING_PURPOSE = { CONTROL: 0, QUEUE: 1 } as const;
export const RING_ANSWER = { JOIN: 0, BUSY: 1 } as const;

/** First thing on every connection, from who connects. */
export const RingHello = struct('RING_HELLO', {
  magic: u32(0, 'says what this is', { equals: MAGIC }),
  version: u32(4, 'version', { equals: VERSION }),
  purpose: u32(8, 'of the connection', { names: RING_PURPOSE }),
  session: u32(12, 'of the welcome; 0 for CONTROL'),
  queue: u32(16, 'for QUEUE: wakes who receives on it'),
});

/** Answer to the hello of a CONTROL connection. */
export const RingWelcome = struct('RING_WELCOME', {
  magic: u32(0, 'says what this is', { equals: MAGIC }),
  version: u32(4, 'version', { equals: VERSION }),
  answer: u32(8, 'BUSY: the link has two ends already', { names: RING_ANSWER }),
  session: u32(12, 'to be named by QUEUE connections'),
  memory: u32(16, "descriptor of the shared file in the sender's process"),
  queues: u32(20, 'in each direction'),
  slots: u32(24, 'of each queue, a power of two'),
});

/** Words on the CONTROL connection from then on: the low byte of each. */
export const RING_WORD = {
  /** No packets are taken. */
  DOWN: 0,
  /** Packets are taken; the number of tx queues stands above. */
  UP: 1,
  /** From who connected: it has the file, and its QUEUE connections are made. */
  READY: 2,
} as const;

export const RING_LINK_TABLES = [RingHello, RingWelcome] as const;
