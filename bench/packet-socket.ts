// Raw packets on an interface of the calling thread's namespace, for generators: AF_PACKET without the queueing
// discipline, many packets to a system call.
import { closeSync } from 'node:fs';
import {
  allocateOffHeap,
  check,
  declare,
  ERRNO,
  freeOffHeap,
  type OffHeap,
  OsError,
  orError,
} from '../src/memory/os/libc.js';

const AF_PACKET = 17;
const SOCK_RAW = 3;
const SOL_PACKET = 263;
const PACKET_QDISC_BYPASS = 20;
const MSG_DONTWAIT = 0x40;
const ENOBUFS = ERRNO.ENOBUFS!;
const EAGAIN = ERRNO.EAGAIN!;
/** struct sockaddr_ll, struct iovec, struct mmsghdr. */
const ADDRESS_BYTES = 20;
const VECTOR_AT = 32;
const OPTION_AT = 48;
const MESSAGES_AT = 64;
const MESSAGE_BYTES = 64;

const socketCall = declare('int socket(int domain, int type, int protocol)');
const bindCall = declare('int bind(int fd, uint64 address, uint bytes)');
const setsockopt = declare('int setsockopt(int fd, int level, int name, uint64 value, uint bytes)');
const indexOf = declare('uint if_nametoindex(str name)');
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
    const index = indexOf(ifname);
    if (index === 0) throw new OsError('if_nametoindex', ERRNO.ENODEV!, ifname);
    this.#batch = batch;
    this.#fd = check(socketCall(AF_PACKET, SOCK_RAW, 0), 'socket', 'AF_PACKET');
    this.#frame = allocateOffHeap(2048);
    const memory = allocateOffHeap(MESSAGES_AT + batch * MESSAGE_BYTES);
    const view = new DataView(memory.buffer);
    view.setUint16(0, AF_PACKET, true);
    view.setUint16(2, receive ? ETHER_TYPE : 0); // network order
    view.setInt32(4, index, true);
    check(bindCall(this.#fd, memory.address, ADDRESS_BYTES), 'bind', ifname);
    view.setInt32(OPTION_AT, 1, true);
    check(setsockopt(this.#fd, SOL_PACKET, PACKET_QDISC_BYPASS, memory.address + OPTION_AT, 4), 'setsockopt', ifname);
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
