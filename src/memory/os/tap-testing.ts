// For tests: a TAP interface in a network namespace of its own, and raw packets at its kernel side.
import { closeSync, writeFileSync } from 'node:fs';
import { check, declare, declareBytes, ioctl, orError, scratch, scratchBytes, scratchView } from './libc.js';
import { createNetwork, inNetwork } from './netns.js';
import { openTap } from './tap.js';

const AF_PACKET = 17;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const ETH_P_ALL = 3;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const SIOCSIFMTU = 0x8922;
const SIOCGIFINDEX = 0x8933;
const IFF_UP = 1;
const MSG_DONTWAIT = 0x40;

const socket = declare('int socket(int domain, int type, int protocol)');
const bind = declare('int bind(int fd, uint64 address, uint bytes)');
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
      const raw = check(
        socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, (ETH_P_ALL << 8) & 0xffff),
        'socket',
        'AF_PACKET',
      );
      const test = { fd, name: tap.name, network, socket: raw };
      setInterfaceUp(test, true);
      request(tap.name);
      ioctl(raw, SIOCGIFINDEX, scratch.address, 'ioctl(SIOCGIFINDEX)', tap.name);
      const index = scratchView.getInt32(16, true);
      scratchBytes.fill(0, 0, 20);
      scratchView.setUint16(0, AF_PACKET, true);
      scratchView.setUint16(2, ETH_P_ALL);
      scratchView.setInt32(4, index, true);
      check(bind(raw, scratch.address, 20), 'bind', tap.name);
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
