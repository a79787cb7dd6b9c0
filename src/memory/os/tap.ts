// TAP interfaces: packets of the kernel's network stack as reads and writes, each behind a virtio_net_hdr that says which
// checksums and segmentations are still to be done (linux/if_tun.h).
import { closeSync, constants, openSync } from 'node:fs';
import { BPF_TYPE, loadBpfProgram } from './bpf.js';
import { declare, ERRNO, ioctl, OsError, orError, readTo, scratch, scratchBytes, scratchView } from './libc.js';
import { isInterfaceName } from './netlink.js';
import { POLL, PollSet } from './poll.js';

const TUNSETIFF = 0x400454ca;
const TUNSETPERSIST = 0x400454cb;
const TUNSETOFFLOAD = 0x400454d0;
const TUNSETVNETHDRSZ = 0x400454d8;
const TUNGETIFF = 0x800454d2;
const TUNSETCARRIER = 0x400454e2;
const TUNGETDEVNETNS = 0x54e3;
const TUNSETSTEERINGEBPF = 0x800454e0;
const IFF_TAP = 0x0002;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const IFREQ_BYTES = 40;
/** Packets that a queue may hold, and more. */
const DRAIN_MAX = 10_000;

const ioctlCall = declare('int ioctl(int fd, uint64 request, uint64 argument)');

/** Bytes of the header in front of every packet: virtio_net_hdr_v1, whose num_buffers field at 10 the kernel writes as 0 and ignores. */
export const TAP_HEADER_BYTES = 12;
/** The longest read from a TAP: header, Ethernet, VLAN tag and a full TSO packet. */
export const TAP_PACKET_MAX = TAP_HEADER_BYTES + 65_562;

/** What the reader of a TAP does for the kernel: TUN_F_* bits. */
export const TAP_OFFLOAD = { CSUM: 0x01, TSO4: 0x02, TSO6: 0x04, TSO_ECN: 0x08, USO4: 0x20, USO6: 0x40 } as const;

/** An open queue of a TAP interface. */
export interface Tap {
  /** Non-blocking; the caller closes it, and the interface goes with its last queue. */
  readonly fd: number;
  /** The name the kernel gave it. */
  readonly name: string;
}

/** Opens a TAP interface, made if it is not there, in the calling thread's network namespace. `name` may end in %d for the
 *  kernel to number it, or be empty for "tap%d". Throws OsError: EPERM without CAP_NET_ADMIN, EBUSY when taken. */
export function openTap(name: string, options: { readonly multiQueue?: boolean } = {}): Tap {
  const bytes = Buffer.from(name);
  if (name !== '' && !isInterfaceName(name)) {
    throw new RangeError(`TAP name ${JSON.stringify(name)}: expected at most 15 bytes without / : or space`);
  }
  const fd = openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK);
  try {
    scratchBytes.fill(0, 0, IFREQ_BYTES);
    scratchBytes.set(bytes);
    const flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (options.multiQueue ? IFF_MULTI_QUEUE : 0);
    scratchView.setUint16(16, flags, true);
    ioctl(fd, TUNSETIFF, scratch.address, 'ioctl(TUNSETIFF)', name || 'tap%d');
    const given = Buffer.from(scratchBytes.subarray(0, 16)).toString().split('\0')[0]!;
    scratchView.setInt32(0, TAP_HEADER_BYTES, true);
    ioctl(fd, TUNSETVNETHDRSZ, scratch.address, 'ioctl(TUNSETVNETHDRSZ)', given);
    return { fd, name: given };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Tells the kernel what it may leave to us (TAP_OFFLOAD bits), any time. A kernel before 6.2 has no USO: it is left out.
 *  Returns what was set. Throws OsError. */
export function setTapOffload(fd: number, offload: number): number {
  const uso = TAP_OFFLOAD.USO4 | TAP_OFFLOAD.USO6;
  const result = orError(ioctlCall(fd, TUNSETOFFLOAD, offload));
  if (result >= 0) return offload;
  const less = offload & ~uso;
  if (result !== -ERRNO.EINVAL! || less === offload) {
    throw new OsError('ioctl(TUNSETOFFLOAD)', -result, `0x${offload.toString(16)}`);
  }
  ioctl(fd, TUNSETOFFLOAD, less, 'ioctl(TUNSETOFFLOAD)', `0x${less.toString(16)}`);
  return less;
}

/** Link up or down, as the interface's user sees it. Throws OsError. */
export function setTapCarrier(fd: number, up: boolean): void {
  scratchView.setInt32(0, up ? 1 : 0, true);
  ioctl(fd, TUNSETCARRIER, scratch.address, 'ioctl(TUNSETCARRIER)', up ? 'up' : 'down');
}

/** Whether the interface stays when its last queue is closed. Throws OsError. */
export const setTapPersistent = (fd: number, on: boolean): void =>
  void ioctl(fd, TUNSETPERSIST, on ? 1 : 0, 'ioctl(TUNSETPERSIST)', `descriptor ${fd}`);

/** What the interface is called now, or undefined when it was removed. */
export function tapName(fd: number): string | undefined {
  if (orError(ioctlCall(fd, TUNGETIFF, scratch.address)) < 0) return undefined;
  return Buffer.from(scratchBytes.subarray(0, 16)).toString().split('\0')[0];
}

/** Descriptor of the network namespace in which the interface is now; the caller closes it. Throws OsError. */
export const openTapNetwork = (fd: number): number =>
  ioctl(fd, TUNGETDEVNETNS, 0, 'ioctl(TUNGETDEVNETNS)', `descriptor ${fd}`);

/** Leaves the choice of the queue for what the kernel sends to an eBPF program, -1 = to the kernel. Throws OsError. */
export function setTapSteering(fd: number, program: number): void {
  scratchView.setInt32(0, program, true);
  ioctl(fd, TUNSETSTEERINGEBPF, scratch.address, 'ioctl(TUNSETSTEERINGEBPF)', `program ${program}`);
}

/** Descriptor of an eBPF program for setTapSteering that always chooses queue 0; the caller closes it. Throws OsError (EPERM). */
export const loadFirstQueueProgram = (): number =>
  // r0 = 0; exit
  loadBpfProgram(
    BPF_TYPE.SOCKET_FILTER,
    Uint8Array.of(0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0),
    'for a TAP',
  );

/** Packets wait in a queue. */
export function tapHolds(fd: number): boolean {
  const polls = new PollSet(1);
  try {
    polls.add(fd);
    return polls.wait(0) > 0 && (polls.revents(fd) & POLL.IN) !== 0;
  } finally {
    polls.close();
  }
}

/** Throws away what waits in a queue. */
export function drainTap(fd: number): void {
  for (let i = 0; i < DRAIN_MAX && readTo(fd, scratch.address, scratch.bytes) > 0; i++);
}
