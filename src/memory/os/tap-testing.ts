// For tests: a TAP interface in a network namespace of its own, and raw packets at its kernel side.
import { closeSync, writeFileSync } from 'node:fs';
import { check, declareBytes, ioctl, orError, scratch, scratchBytes, scratchView } from './libc.js';
import { interfaceIndex } from './netlink.js';
import { createNetwork, inNetwork } from './netns.js';
import { bindPacketSocket, openPacketSocket, PACKET_PROTOCOL } from './packet-socket.js';
import { openTap } from './tap.js';

const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const SIOCSIFMTU = 0x8922;
const IFF_UP = 1;
const MSG_DONTWAIT = 0x40;

const send = declareBytes('int64 send(int fd, const void *from, uint64 bytes, int flags)');
const recv = declareBytes('int64 recv(int fd, void *to, uint64 bytes, int flags)');

/** Why tests with a real TAP cannot run here, for node:test's `skip`; false when they can. */
export function noTapReason(): string | false {
  try {
    closeTestTap(openTestTap());
    return false;
  } catch (error) {
    return `needs a TAP in a network namespace (CAP_NET_ADMIN and CAP_SYS_ADMIN): ${(error as Error).message}`;
  }
}

export interface TestTap {
  /** TAP queue, as openTap() gives it. */
  readonly fd: number;
  readonly name: string;
  /** The namespace, for inNetwork(`/proc/self/fd/${network}`, ...). */
  readonly network: number;
  /** Packet socket on the interface: what is sent on it, the TAP reads; what the TAP writes, it receives. */
  readonly socket: number;
}

/** A TAP that is up in a new namespace. Closing it, or the end of the process, removes all. */
export function openTestTap(options: { readonly multiQueue?: boolean } = {}): TestTap {
  const network = createNetwork();
  let fd = -1;
  try {
    return inNetwork(`/proc/self/fd/${network}`, () => {
      try {
        writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '1'); // no packets of the kernel's own
      } catch {
        // no IPv6, or a read-only /proc: tests filter by Ethernet type as well
      }
      const tap = openTap('test0', options);
      fd = tap.fd;
      const raw = openPacketSocket();
      const test = { fd, name: tap.name, network, socket: raw };
      setInterfaceUp(test, true);
      bindPacketSocket(raw, interfaceIndex(tap.name), PACKET_PROTOCOL.ALL);
      return test;
    });
  } catch (error) {
    if (fd >= 0) closeSync(fd);
    closeSync(network);
    throw error;
  }
}

export function closeTestTap(tap: TestTap): void {
  closeSync(tap.socket);
  closeSync(tap.fd);
  closeSync(tap.network);
}

/** Sets the interface up or down. */
export function setInterfaceUp(tap: { readonly name: string; readonly socket: number }, up: boolean): void {
  request(tap.name);
  ioctl(tap.socket, SIOCGIFFLAGS, scratch.address, 'ioctl(SIOCGIFFLAGS)', tap.name);
  const flags = scratchView.getUint16(16, true);
  scratchView.setUint16(16, up ? flags | IFF_UP : flags & ~IFF_UP, true);
  ioctl(tap.socket, SIOCSIFFLAGS, scratch.address, 'ioctl(SIOCSIFFLAGS)', `${tap.name} ${up ? 'up' : 'down'}`);
}

/** Sets the interface's MTU; a TAP takes up to 65,521. */
export function setMtu(tap: TestTap, mtu: number): void {
  request(tap.name);
  scratchView.setInt32(16, mtu, true);
  ioctl(tap.socket, SIOCSIFMTU, scratch.address, 'ioctl(SIOCSIFMTU)', `${tap.name} ${mtu}`);
}

/** Sends an Ethernet frame out of the interface: the TAP reads it. */
export const sendFrame = (tap: TestTap, frame: Uint8Array): number =>
  check(send(tap.socket, frame, frame.length, 0), 'send', tap.name);

/** Frames that the packet socket has seen since it was last asked, of one Ethernet type. */
export function receiveFrames(tap: TestTap, etherType: number): Uint8Array[] {
  const frames: Uint8Array[] = [];
  const buffer = new Uint8Array(70_000);
  for (;;) {
    const length = orError(recv(tap.socket, buffer, buffer.length, MSG_DONTWAIT));
    if (length < 0) return frames;
    if (((buffer[12]! << 8) | buffer[13]!) === etherType) frames.push(buffer.slice(0, length));
  }
}

function request(name: string): void {
  scratchBytes.fill(0, 0, 40);
  scratchBytes.set(Buffer.from(name));
}
