// Raw packets on an interface of the calling thread's namespace, for generators: AF_PACKET without the queueing
// discipline, many packets to a system call.
import { closeSync } from 'node:fs';
import { allocateOffHeap, declare, ERRNO, freeOffHeap, type OffHeap, OsError, orError } from '../src/memory/os/libc.js';
import { interfaceIndex } from '../src/memory/os/netlink.js';
import { bindPacketSocket, bypassQdisc, openPacketSocket, PACKET_PROTOCOL } from '../src/memory/os/packet-socket.js';

const MSG_DONTWAIT = 0x40;
const ENOBUFS = ERRNO.ENOBUFS!;
const EAGAIN = ERRNO.EAGAIN!;
/** struct iovec, struct mmsghdr. */
const VECTOR_AT = 32;
const MESSAGES_AT = 64;
const MESSAGE_BYTES = 64;

const sendmmsg = declare('int sendmmsg(int fd, uint64 messages, uint count, int flags)');
const recvCall = declare('int64 recv(int fd, uint64 to, uint64 bytes, int flags)');

/** Ethernet type of the benchmarks' own frames: "local experimental" (IEEE 802). */
export const ETHER_TYPE = 0x88b5;

const macBytes = (mac: string): number[] => mac.split(':').map((byte) => Number.parseInt(byte, 16));

export class PacketSocket {
  readonly #fd: number;
  readonly #memory: OffHeap;
  readonly #frame: OffHeap;
  readonly #batch: number;

  /** `receive`: hears frames of ETHER_TYPE; else the kernel passes it none. Throws OsError. */
  constructor(ifname: string, options: { readonly receive?: boolean; readonly batch?: number } = {}) {
    const { receive = false, batch = 64 } = options;
    const index = interfaceIndex(ifname);
    this.#batch = batch;
    this.#fd = openPacketSocket();
    this.#frame = allocateOffHeap(2048);
    const memory = allocateOffHeap(MESSAGES_AT + batch * MESSAGE_BYTES);
    const view = new DataView(memory.buffer);
    bindPacketSocket(this.#fd, index, receive ? ETHER_TYPE : PACKET_PROTOCOL.NONE);
    bypassQdisc(this.#fd);
    view.setBigUint64(VECTOR_AT, BigInt(this.#frame.address), true);
    for (let i = 0; i < batch; i++) {
      view.setBigUint64(MESSAGES_AT + i * MESSAGE_BYTES + 16, BigInt(memory.address + VECTOR_AT), true);
      view.setBigUint64(MESSAGES_AT + i * MESSAGE_BYTES + 24, 1n, true);
    }
    this.#memory = memory;
  }

  /** What send() sends from now on: a frame of that length (without FCS) between two stations. */
  setFrame(from: string, to: string, bytes: number): void {
    const frame = new Uint8Array(this.#frame.buffer);
    frame.set([...macBytes(to), ...macBytes(from), ETHER_TYPE >> 8, ETHER_TYPE & 0xff]);
    new DataView(this.#memory.buffer).setBigUint64(VECTOR_AT + 8, BigInt(bytes), true);
  }

  /** Sends the frame `count` times, at most a batch; returns how many the interface took. Full is not an error. */
  send(count = this.#batch): number {
    const sent = orError(
      sendmmsg(this.#fd, this.#memory.address + MESSAGES_AT, Math.min(count, this.#batch), MSG_DONTWAIT),
    );
    if (sent >= 0) return sent;
    if (sent === -ENOBUFS || sent === -EAGAIN) return 0;
    throw new OsError('sendmmsg', -sent, `of ${count} frames`);
  }

  /** Takes one frame; false when none waits. The frame to send is overwritten: not for sockets that do both. */
  receive(): boolean {
    const length = orError(recvCall(this.#fd, this.#frame.address, 2048, MSG_DONTWAIT));
    if (length >= 0) return true;
    if (length === -EAGAIN) return false;
    throw new OsError('recv', -length, 'of a frame');
  }

  close(): void {
    closeSync(this.#fd);
    freeOffHeap(this.#frame);
    freeOffHeap(this.#memory);
  }
}
