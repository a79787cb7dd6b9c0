// For tests: network namespaces that go with the process, and raw packets at the kernel's side of an interface.
import { spawnSync } from 'node:child_process';
import { closeSync, writeFileSync } from 'node:fs';
import { check, declare, declareBytes, ERRNO, orError, scratch, scratchView } from './libc.js';
import { interfaceIndex } from './netlink.js';
import { createNetwork, inNetwork } from './netns.js';
import { bindPacketSocket, ignoreOutgoing, openPacketSocket, PACKET_PROTOCOL } from './packet-socket.js';

const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const RECEIVE_BYTES = 64 << 20;
const send = declareBytes('int64 send(int fd, const void *from, uint64 bytes, int flags)');
const recv = declareBytes('int64 recv(int fd, void *to, uint64 bytes, int flags)');
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

/** A packet socket on an interface: sends out of it and sees what comes in. */
export class PacketPeer {
  readonly #fd: number;
  readonly #buffer = new Uint8Array(70_000);

  /** In the calling thread's namespace. `protocol`: Ethernet type that it sees. */
  constructor(name: string, protocol: number = PACKET_PROTOCOL.ALL) {
    const index = interfaceIndex(name);
    this.#fd = openPacketSocket();
    ignoreOutgoing(this.#fd);
    scratchView.setInt32(0, RECEIVE_BYTES, true);
    setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, scratch.address, 4);
    bindPacketSocket(this.#fd, index, protocol);
  }

  /** False when the kernel has no room for it, or the interface is down or was. */
  send(frame: Uint8Array): boolean {
    const sent = orError(send(this.#fd, frame, frame.length, 0));
    if (sent === -ERRNO.ENOBUFS! || sent === -ERRNO.EAGAIN! || sent === -ERRNO.ENETDOWN!) return false;
    check(Math.min(sent, 0), 'send', `${frame.length} bytes`);
    return true;
  }

  /** What came since the last call. */
  receive(): Uint8Array[] {
    const frames: Uint8Array[] = [];
    for (;;) {
      const length = orError(recv(this.#fd, this.#buffer, this.#buffer.length, 0));
      if (length < 0) return frames;
      frames.push(this.#buffer.slice(0, length));
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}
