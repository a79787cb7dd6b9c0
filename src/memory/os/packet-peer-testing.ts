// For tests: network namespaces that go with the process, and raw packets at the kernel's side of an interface.
import { spawnSync } from 'node:child_process';
import { closeSync, writeFileSync } from 'node:fs';
import {
  allocateOffHeap,
  check,
  declare,
  declareBytes,
  ERRNO,
  freeOffHeap,
  orError,
  scratch,
  scratchView,
} from './libc.js';
import { interfaceIndex, NetworkInterface } from './netlink.js';
import { createNetwork, inNetwork } from './netns.js';
import {
  bindPacketSocket,
  ignoreOutgoing,
  openPacketSocket,
  PACKET_HEADER_BYTES,
  PACKET_PROTOCOL,
  setSendBuffer,
  useVnetHeader,
} from './packet-socket.js';
import { PollSet } from './poll.js';

const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const RECEIVE_BYTES = 64 << 20;
const PATIENCE_MS = 3000;
const SOL_PACKET = 263;
const PACKET_AUXDATA = 8;
const FRAME_BYTES = 70_000;
// Where things lie in a peer's memory: struct msghdr, struct iovec, a control message with a struct tpacket_auxdata, the frame.
const VECTOR_AT = 64;
const CONTROL_AT = 128;
const CONTROL_BYTES = 64;
const FRAME_AT = 256;
const STATUS_VLAN = 0x10;
const send = declareBytes('int64 send(int fd, const void *from, uint64 bytes, int flags)');
const recvmsg = declare('int64 recvmsg(int fd, uint64 message, int flags)');
const setsockopt = declare('int setsockopt(int fd, int level, int name, uint64 value, uint bytes)');

/** A network namespace of its own, without IPv6, so that the kernel sends nothing by itself. */
export class TestNetwork {
  readonly fd: number;

  /** Throws OsError (EPERM). */
  constructor() {
    this.fd = createNetwork();
    this.in(() => {
      try {
        writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '1');
      } catch {
        // no IPv6, or a read-only /proc: tests filter by Ethernet type as well
      }
    });
  }

  /** For inNetwork() and `ip link set ... netns`, as long as it is open. */
  get path(): string {
    return `/proc/${process.pid}/fd/${this.fd}`;
  }

  in<T>(work: () => T): T {
    return inNetwork(this.path, work);
  }

  /** Runs a program in it; its output. Throws what it says when it fails. */
  run(command: string): string {
    const [program = '', ...words] = command.split(' ');
    const { status, stdout, stderr, error } = this.in(() => spawnSync(program, words, { encoding: 'utf8' }));
    if (status !== 0) throw new Error(`${command}: ${error?.message ?? stderr}`);
    return stdout;
  }

  /** Two interfaces that are joined, both up; the second one may be elsewhere. */
  veth(here: string, there: string, elsewhere: TestNetwork = this): void {
    this.run(`ip link add ${here} type veth peer name ${there}`);
    if (elsewhere !== this) this.run(`ip link set ${there} netns ${elsewhere.path}`);
    this.run(`ip link set ${here} up`);
    elsewhere.run(`ip link set ${there} up`);
    this.waitFor(here);
    elsewhere.waitFor(there);
  }

  /** Until an interface is in operation: before, its queue drops everything in silence. */
  waitFor(name: string): void {
    const found = this.in(() => new NetworkInterface(name));
    try {
      for (const end = performance.now() + PATIENCE_MS; !found.state().running; )
        if (performance.now() > end) throw new Error(`${name} does not come into operation`);
    } finally {
      found.close();
    }
  }

  close(): void {
    closeSync(this.fd);
  }
}

/** Why tests with namespaces and interfaces cannot run here, for node:test's `skip`; false when they can. */
export function noNetworkReason(): string | false {
  try {
    const network = new TestNetwork();
    try {
      network.veth('probe0', 'probe1');
      network.in(() => closeSync(openPacketSocket()));
      return false;
    } finally {
      network.close();
    }
  } catch (error) {
    return `needs network namespaces, veth and packet sockets: ${(error as Error).message}`;
  }
}

/** A packet socket on an interface: sends out of it and sees what comes in, with its tags. */
export class PacketPeer {
  readonly #fd: number;
  readonly #memory = allocateOffHeap(FRAME_AT + FRAME_BYTES);
  readonly #view = new DataView(this.#memory.buffer);
  readonly #polls = new PollSet(1);
  /** Bytes in front of a received frame. */
  readonly #header: number;

  /** In the calling thread's namespace. `protocol`: Ethernet type that it sees. `vnetHeader`: what it receives comes behind a
   *  virtio_net_hdr of 10 bytes, as the kernel describes it (offsets without the tag); it sends nothing then. */
  constructor(name: string, protocol: number = PACKET_PROTOCOL.ALL, vnetHeader = false) {
    this.#header = vnetHeader ? PACKET_HEADER_BYTES : 0;
    const index = interfaceIndex(name);
    this.#fd = openPacketSocket();
    ignoreOutgoing(this.#fd);
    scratchView.setInt32(0, RECEIVE_BYTES, true);
    setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, scratch.address, 4);
    scratchView.setInt32(0, 1, true);
    check(setsockopt(this.#fd, SOL_PACKET, PACKET_AUXDATA, scratch.address, 4), 'setsockopt(PACKET_AUXDATA)', name);
    setSendBuffer(this.#fd, RECEIVE_BYTES);
    if (vnetHeader) useVnetHeader(this.#fd);
    bindPacketSocket(this.#fd, index, protocol);
    this.#polls.add(this.#fd);
    const at = BigInt(this.#memory.address);
    this.#view.setBigUint64(16, at + BigInt(VECTOR_AT), true);
    this.#view.setBigUint64(24, 1n, true);
    this.#view.setBigUint64(32, at + BigInt(CONTROL_AT), true);
    this.#view.setBigUint64(VECTOR_AT, at + BigInt(FRAME_AT), true);
    this.#view.setBigUint64(VECTOR_AT + 8, BigInt(FRAME_BYTES), true);
  }

  /** False when the kernel has no room for it, or the interface is down or was. */
  send(frame: Uint8Array): boolean {
    const sent = orError(send(this.#fd, frame, frame.length, 0));
    if (sent === -ERRNO.ENOBUFS! || sent === -ERRNO.EAGAIN! || sent === -ERRNO.ENETDOWN!) return false;
    check(Math.min(sent, 0), 'send', `${frame.length} bytes`);
    return true;
  }

  /** What came since the last call; waits some seconds at most for the first `count`. */
  receive(count = 0): Uint8Array[] {
    const frames: Uint8Array[] = [];
    const end = performance.now() + PATIENCE_MS;
    for (;;) {
      this.#view.setBigUint64(40, BigInt(CONTROL_BYTES), true);
      const length = orError(recvmsg(this.#fd, this.#memory.address, 0));
      if (length >= 0) frames.push(this.#frame(length));
      else if (frames.length >= count || performance.now() > end) return frames;
      else this.#polls.wait(10);
    }
  }

  close(): void {
    this.#polls.close();
    closeSync(this.#fd);
    freeOffHeap(this.#memory);
  }

  /** The kernel keeps an outer tag beside the data. */
  #frame(length: number): Uint8Array {
    const frame = new Uint8Array(this.#memory.buffer, FRAME_AT, length);
    const told =
      this.#view.getBigUint64(40, true) > 0n && this.#view.getUint32(CONTROL_AT + 12, true) === PACKET_AUXDATA;
    const auxiliary = CONTROL_AT + 16;
    if (!told || (this.#view.getUint32(auxiliary, true) & STATUS_VLAN) === 0) return frame.slice();
    const [tci, tpid] = [this.#view.getUint16(auxiliary + 16, true), this.#view.getUint16(auxiliary + 18, true)];
    const type = this.#header + 12;
    return Uint8Array.from([
      ...frame.subarray(0, type),
      ...[tpid >> 8, tpid & 255, tci >> 8, tci & 255],
      ...frame.subarray(type),
    ]);
  }
}
