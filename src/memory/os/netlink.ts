// A network interface through rtnetlink(7): its state, changes to it, and word of changes that others make. By number, so that
// another name does not matter.
import { closeSync } from 'node:fs';
import { check, declare, declareBytes, ERRNO, OsError, orError, scratch, scratchView } from './libc.js';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const GROUP_LINK = 1;
const MESSAGE = { ERROR: 2, NEW_LINK: 16, DEL_LINK: 17, GET_LINK: 18, SET_LINK: 19 } as const;
const FLAG = { REQUEST: 1, ACKNOWLEDGE: 4 } as const;
const ATTRIBUTE = {
  ...{
    ADDRESS: 1,
    NAME: 3,
    MTU: 4,
    LINK_INFO: 18,
    STATS64: 23,
    PROMISCUITY: 30,
    GSO_MAX_SEGMENTS: 40,
    GSO_MAX_BYTES: 41,
  },
  ...{ MIN_MTU: 50, MAX_MTU: 51, GSO_IPV4_MAX_BYTES: 63 },
} as const;
const LINK_INFO = { KIND: 1, DATA: 2 } as const;
const TUN_NUM_QUEUES = 8;
const HEADER_BYTES = 16; // struct nlmsghdr
const INFO_BYTES = 16; // struct ifinfomsg
const IFF_UP = 1;
const IFF_RUNNING = 0x40;
/** Fields of struct rtnl_link_stats64 before tx_dropped. */
const TX_DROPPED = 7;
const NAME_MAX = 15;
const BUFFER_BYTES = 32_768;

const socketCall = declare('int socket(int domain, int type, int protocol)');
const bindCall = declare('int bind(int fd, uint64 address, uint bytes)');
const sendCall = declareBytes('int64 send(int fd, const void *from, uint64 bytes, int flags)');
const recvCall = declareBytes('int64 recv(int fd, void *to, uint64 bytes, int flags)');
const indexOf = declare('uint if_nametoindex(str name)');

export interface InterfaceState {
  readonly index: number;
  readonly name: string;
  /** ARPHRD number: 1 = Ethernet. */
  readonly type: number;
  /** Set up by the administrator. */
  readonly up: boolean;
  /** Up, and with a carrier. */
  readonly running: boolean;
  /** Somebody wants to see every packet (tcpdump, a bridge). */
  readonly promiscuous: boolean;
  readonly mtu: number;
  readonly minMtu: number;
  /** 0 = the kernel does not say. */
  readonly maxMtu: number;
  readonly mac: Uint8Array;
  /** Packets that it dropped on the way out. */
  readonly txDropped: number;
  /** Queues of a TAP interface that somebody has attached; 0 = it is none. */
  readonly tapQueues: number;
}

/** True for what Linux takes as an interface's name. */
export const isInterfaceName = (name: string): boolean =>
  name !== '' && Buffer.byteLength(name) <= NAME_MAX && !/[/\s\0:]/.test(name) && name !== '.' && name !== '..';

/** Number of an interface in the calling thread's namespace. Throws OsError (ENODEV). */
export function interfaceIndex(name: string): number {
  const index = isInterfaceName(name) ? indexOf(name) : 0;
  if (index === 0) throw new OsError('if_nametoindex', ERRNO.ENODEV!, name);
  return index;
}

/** One interface, in the network namespace where it was opened. */
export class NetworkInterface {
  readonly index: number;
  readonly #about: string;
  readonly #requests: number;
  readonly #news: number;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  readonly #view = new DataView(this.#buffer.buffer);
  #sequence = 0;

  /** In the calling thread's namespace. Throws OsError (ENODEV). */
  constructor(name: string) {
    this.#about = name;
    this.index = interfaceIndex(name);
    this.#requests = openNetlink(0);
    try {
      this.#news = openNetlink(GROUP_LINK);
    } catch (error) {
      closeSync(this.#requests);
      throw error;
    }
  }

  /** Throws OsError (ENODEV when it is gone). */
  state(): InterfaceState {
    this.#request(MESSAGE.GET_LINK, 0, 0, []);
    const length = this.#answer('RTM_GETLINK');
    const kind = this.#view.getUint16(4, true);
    if (kind !== MESSAGE.NEW_LINK) throw new OsError('RTM_GETLINK', ERRNO.EPROTO!, this.#about);
    return this.#parse(length);
  }

  /** Brings it up or down. Throws OsError (EPERM). */
  setUp(up: boolean): void {
    this.#change(up ? IFF_UP : 0, IFF_UP, []);
  }

  /** Throws OsError (EINVAL: out of its range). */
  setMtu(mtu: number): void {
    this.#change(0, 0, [{ type: ATTRIBUTE.MTU, value: word(mtu) }]);
  }

  /** The largest packets that the stack hands to it to be cut. Throws OsError (EINVAL: more than the interface can take). */
  setGsoLimit(bytes: number, segments: number): void {
    const both = [
      { type: ATTRIBUTE.GSO_MAX_SEGMENTS, value: word(segments) },
      { type: ATTRIBUTE.GSO_MAX_BYTES, value: word(bytes) },
    ];
    this.#change(0, 0, both);
    try {
      this.#change(0, 0, [{ type: ATTRIBUTE.GSO_IPV4_MAX_BYTES, value: word(bytes) }]);
    } catch (error) {
      // Kernels before 6.3 have one limit for both families, and do not know of this one.
      if (!(error instanceof OsError && (error.code === 'EINVAL' || error.code === 'EOPNOTSUPP'))) throw error;
    }
  }

  /** Throws OsError (EBUSY: not while it is up; EOPNOTSUPP). */
  setMac(mac: Uint8Array): void {
    this.#change(0, 0, [{ type: ATTRIBUTE.ADDRESS, value: mac }]);
  }

  /** Readable when there are news. */
  get newsFd(): number {
    return this.#news;
  }

  /** What happened to it since the last call, without waiting. 'removed' also when it went to another namespace. */
  news(): 'changed' | 'removed' | undefined {
    let found: 'changed' | undefined;
    for (;;) {
      const length = orError(recvCall(this.#news, this.#buffer, BUFFER_BYTES, 0));
      if (length === -ERRNO.ENOBUFS!)
        found = 'changed'; // some were lost
      else if (length <= 0) return found;
      for (let at = 0; at + HEADER_BYTES + INFO_BYTES <= length; ) {
        const bytes = this.#view.getUint32(at, true);
        if (bytes < HEADER_BYTES || at + bytes > length) break;
        // Of family AF_UNSPEC: bridges have their own news of their ports.
        if (this.#buffer[at + HEADER_BYTES] === 0 && this.#view.getInt32(at + HEADER_BYTES + 4, true) === this.index) {
          if (this.#view.getUint16(at + 4, true) === MESSAGE.DEL_LINK) return 'removed';
          found = 'changed';
        }
        at += (bytes + 3) & ~3;
      }
    }
  }

  /** Speed in Mbit/s, 0 = unknown, and duplex and negotiation, as the driver says. */
  speed(): { readonly mbps: number; readonly fullDuplex: boolean; readonly autonegotiated: boolean } {
    return ethtoolSpeed(this.#requests, this.state().name);
  }

  /** What speed() shall say from now on, where the driver lets it be set (TAP). Throws OsError. */
  setSpeed(mbps: number): void {
    setEthtoolSpeed(this.#requests, this.state().name, mbps);
  }

  close(): void {
    closeSync(this.#requests);
    closeSync(this.#news);
  }

  #change(flags: number, mask: number, attributes: readonly { type: number; value: Uint8Array }[]): void {
    this.#request(MESSAGE.SET_LINK, flags, mask, attributes);
    this.#answer('RTM_SETLINK');
  }

  #request(
    type: number,
    flags: number,
    mask: number,
    attributes: readonly { readonly type: number; readonly value: Uint8Array }[],
  ): void {
    const view = this.#view;
    this.#buffer.fill(0, 0, 256);
    let length = HEADER_BYTES + INFO_BYTES;
    for (const { type: attribute, value } of attributes) {
      view.setUint16(length, 4 + value.length, true);
      view.setUint16(length + 2, attribute, true);
      this.#buffer.set(value, length + 4);
      length += (4 + value.length + 3) & ~3;
    }
    view.setUint32(0, length, true);
    view.setUint16(4, type, true);
    view.setUint16(6, FLAG.REQUEST | (type === MESSAGE.GET_LINK ? 0 : FLAG.ACKNOWLEDGE), true);
    view.setUint32(8, ++this.#sequence, true);
    view.setInt32(HEADER_BYTES + 4, this.index, true);
    view.setUint32(HEADER_BYTES + 8, flags, true);
    view.setUint32(HEADER_BYTES + 12, mask, true);
    check(sendCall(this.#requests, this.#buffer, length, 0), 'send', `to rtnetlink for ${this.#about}`);
  }

  /** The answer to the last request, which is there once it was sent; its length. Throws OsError. */
  #answer(request: string): number {
    for (;;) {
      const length = check(recvCall(this.#requests, this.#buffer, BUFFER_BYTES, 0), request, this.#about);
      if (length < HEADER_BYTES || this.#view.getUint32(8, true) !== this.#sequence) continue;
      if (this.#view.getUint16(4, true) !== MESSAGE.ERROR) return length;
      const error = length < HEADER_BYTES + 4 ? -ERRNO.EPROTO! : this.#view.getInt32(HEADER_BYTES, true);
      if (error < 0) throw new OsError(request, -error, this.#about);
      return length;
    }
  }

  #parse(length: number): InterfaceState {
    const view = this.#view;
    const flags = view.getUint32(HEADER_BYTES + 8, true);
    const state = {
      ...{ index: this.index, name: this.#about, type: view.getUint16(HEADER_BYTES + 2, true) },
      ...{ up: (flags & IFF_UP) !== 0, running: (flags & IFF_UP) !== 0 && (flags & IFF_RUNNING) !== 0 },
      ...{ promiscuous: false, mtu: 0, minMtu: 0, maxMtu: 0, mac: new Uint8Array(6), txDropped: 0, tapQueues: 0 },
    };
    for (const { type, at, size } of attributes(view, HEADER_BYTES + INFO_BYTES, length)) {
      const word = size === 4 ? view.getUint32(at, true) : 0;
      if (type === ATTRIBUTE.NAME) state.name = this.#text(at, size);
      else if (type === ATTRIBUTE.ADDRESS && size === 6) state.mac = this.#buffer.slice(at, at + 6);
      else if (type === ATTRIBUTE.MTU) state.mtu = word;
      else if (type === ATTRIBUTE.PROMISCUITY) state.promiscuous = word > 0;
      else if (type === ATTRIBUTE.MIN_MTU) state.minMtu = word;
      else if (type === ATTRIBUTE.MAX_MTU) state.maxMtu = word;
      else if (type === ATTRIBUTE.LINK_INFO) state.tapQueues = this.#tapQueues(at, at + size);
      else if (type === ATTRIBUTE.STATS64 && size >= (TX_DROPPED + 1) * 8)
        state.txDropped = Number(view.getBigUint64(at + TX_DROPPED * 8, true));
    }
    return state;
  }

  #tapQueues(from: number, to: number): number {
    const info = [...attributes(this.#view, from, to)];
    const kind = info.find(({ type }) => type === LINK_INFO.KIND);
    const data = info.find(({ type }) => type === LINK_INFO.DATA);
    if (!kind || !data || this.#text(kind.at, kind.size) !== 'tun') return 0;
    for (const { type, at, size } of attributes(this.#view, data.at, data.at + data.size))
      if (type === TUN_NUM_QUEUES && size === 4) return this.#view.getUint32(at, true);
    return 0;
  }

  #text(at: number, size: number): string {
    return Buffer.from(this.#buffer.subarray(at, at + size))
      .toString()
      .split('\0')[0]!;
  }
}

/** The attributes (struct rtattr) between two places; what does not fit ends them. */
function* attributes(view: DataView, from: number, to: number) {
  for (let at = from; at + 4 <= to; ) {
    const bytes = view.getUint16(at, true);
    if (bytes < 4 || at + bytes > to) return;
    yield { type: view.getUint16(at + 2, true) & 0x3fff, at: at + 4, size: bytes - 4 };
    at += (bytes + 3) & ~3;
  }
}

/** `groups`: what to hear of without asking. */
function openNetlink(groups: number): number {
  const fd = check(socketCall(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), 'socket', 'rtnetlink');
  scratchView.setUint16(0, AF_NETLINK, true); // struct sockaddr_nl
  scratchView.setUint16(2, 0, true);
  scratchView.setUint32(4, 0, true);
  scratchView.setUint32(8, groups, true);
  try {
    check(bindCall(fd, scratch.address, 12), 'bind', 'rtnetlink');
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

const word = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
};

const SIOCETHTOOL = 0x8946;
const ETHTOOL_GSET = 1;
const ETHTOOL_SSET = 2;
const SPEED_UNKNOWN = 0xffff_ffff;
const DUPLEX_FULL = 1;
/** struct ethtool_cmd lies behind struct ifreq. */
const COMMAND = 40;
const ioctlCall = declare('int ioctl(int fd, uint64 request, uint64 argument)');

/** Reads struct ethtool_cmd of an interface to scratch; any socket of its namespace will do. False: it has none. */
function readSettings(fd: number, name: string): boolean {
  for (let at = 0; at < COMMAND + 44; at += 4) scratchView.setUint32(at, 0, true);
  Buffer.from(name).forEach((byte, i) => {
    scratchView.setUint8(i, byte);
  });
  scratchView.setBigUint64(16, BigInt(scratch.address + COMMAND), true);
  scratchView.setUint32(COMMAND, ETHTOOL_GSET, true);
  return orError(ioctlCall(fd, SIOCETHTOOL, scratch.address)) >= 0;
}

function ethtoolSpeed(fd: number, name: string) {
  if (!readSettings(fd, name)) return { mbps: 0, fullDuplex: true, autonegotiated: false };
  const mbps = scratchView.getUint16(COMMAND + 28, true) * 65_536 + scratchView.getUint16(COMMAND + 12, true);
  return {
    mbps: mbps === SPEED_UNKNOWN || mbps === 0xffff ? 0 : mbps,
    fullDuplex: scratchView.getUint8(COMMAND + 14) !== 0,
    autonegotiated: scratchView.getUint8(COMMAND + 18) !== 0,
  };
}

function setEthtoolSpeed(fd: number, name: string, mbps: number): void {
  if (!readSettings(fd, name)) throw new OsError('ioctl(ETHTOOL_GSET)', ERRNO.EOPNOTSUPP!, name);
  scratchView.setUint32(COMMAND, ETHTOOL_SSET, true);
  scratchView.setUint16(COMMAND + 12, mbps & 0xffff, true);
  scratchView.setUint16(COMMAND + 28, mbps >>> 16, true);
  scratchView.setUint8(COMMAND + 14, DUPLEX_FULL);
  check(ioctlCall(fd, SIOCETHTOOL, scratch.address), 'ioctl(ETHTOOL_SSET)', `${name} ${mbps} Mbit/s`);
}
