// Unix sockets without libuv: streams, non-blocking, driven from a worker's poll loop; and single datagrams, which Node has not.
import { closeSync, lstatSync, unlinkSync } from 'node:fs';
import {
  check,
  declare,
  declareBytes,
  ERRNO,
  OsError,
  orError,
  readTo,
  scratch,
  scratchBytes,
  scratchView,
  writeFrom,
} from './libc.js';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SHUT_RDWR = 2;
/** sizeof(sun_path) less the final zero. */
const PATH_MAX = 107;

const socketCall = declare('int socket(int domain, int type, int protocol)');
const bindCall = declare('int bind(int fd, uint64 address, uint bytes)');
const listenCall = declare('int listen(int fd, int backlog)');
const acceptCall = declare('int accept4(int fd, uint64 address, uint64 bytes, int flags)');
const connectCall = declare('int connect(int fd, uint64 address, uint bytes)');
const getsockopt = declare('int getsockopt(int fd, int level, int name, uint64 value, uint64 bytes)');
const sendCall = declareBytes('int64 send(int fd, const void *from, uint64 bytes, int flags)');
const recvCall = declareBytes('int64 recv(int fd, void *to, uint64 bytes, int flags)');
const shutdownCall = declare('int shutdown(int fd, int how)');
const fchmodCall = declare('int fchmod(int fd, uint mode)');

/** What receiveWord() returns when the peer has closed. No error number is this large. */
export const CLOSED = -4096;

/** Who is at the other end of a Unix socket, as the kernel saw it at connect. */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** Listens at `path`, mode 0600. A socket that nobody listens at any more is replaced. Throws OsError (EADDRINUSE). */
export function listenUnix(path: string, backlog = 16): number {
  const fd = openSocket(path);
  try {
    // bind() gives the file the mode of the socket's inode: there is no moment at which others may connect.
    check(fchmodCall(fd, 0o600), 'fchmod', path);
    let bound = bind(fd, path);
    if (bound === -ERRNO.EADDRINUSE! && removeDead(path)) bound = bind(fd, path);
    if (bound < 0) throw new OsError('bind', -bound, path);
    check(listenCall(fd, backlog), 'listen', path);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** The next connection, non-blocking, or a negative error number (-EAGAIN: none). */
export const acceptUnix = (listener: number): number =>
  orError(acceptCall(listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC));

/** Connects; the descriptor is non-blocking. Throws OsError: ECONNREFUSED and ENOENT when nobody listens, EAGAIN when
 *  the listener has too many waiting. */
export function connectUnix(path: string): number {
  const fd = openSocket(path);
  const length = fillPath(path);
  const result = orError(connectCall(fd, scratch.address, length));
  if (result >= 0) return fd;
  closeSync(fd);
  throw new OsError('connect', -result, path);
}

/** Ends a connection for both sides at once. A close alone is seen by the other side only when no thread sleeps on the descriptor
 *  any more. What is no socket stays as it is. */
export const endConnection = (fd: number): void => void shutdownCall(fd, SHUT_RDWR);

/** SO_PEERCRED of a connected Unix socket. Throws OsError. */
export function peerCredentials(fd: number): PeerCredentials {
  scratchView.setUint32(16, 12, true);
  check(
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, scratch.address, scratch.address + 16),
    'getsockopt',
    `of descriptor ${fd}`,
  );
  return {
    pid: scratchView.getInt32(0, true),
    uid: scratchView.getUint32(4, true),
    gid: scratchView.getUint32(8, true),
  };
}

/** Sends without waiting: bytes taken, or a negative error number (-EAGAIN: full, -EPIPE: closed). */
export const sendBytes = (fd: number, bytes: Uint8Array, length: number): number =>
  orError(sendCall(fd, bytes, Math.min(length, bytes.length), MSG_DONTWAIT | MSG_NOSIGNAL));

/** Receives without waiting: bytes, 0 when the peer has closed, or a negative error number (-EAGAIN: nothing yet). */
export const receiveBytes = (fd: number, bytes: Uint8Array): number =>
  orError(recvCall(fd, bytes, bytes.length, MSG_DONTWAIT));

/** Writes a little-endian u32 to a socket or a uio node: 0, or a negative error number. */
export function sendWord(fd: number, value: number): number {
  scratchView.setUint32(0, value, true);
  const sent = writeFrom(fd, scratch.address, 4);
  return Math.min(sent, 0);
}

/** Reads a little-endian u32 from a socket or a uio node: its value, CLOSED, or a negative error number (-EAGAIN: nothing
 *  yet; -EPROTO: the stream held part of a word, after which it is of no use). */
export function receiveWord(fd: number): number {
  const length = readTo(fd, scratch.address, 4);
  if (length === 4) return scratchView.getUint32(0, true);
  if (length < 0) return length;
  return length === 0 ? CLOSED : -ERRNO.EPROTO!;
}

/** Sends one datagram to a Unix socket; a path that begins with "@" is an abstract name. Does not wait. Throws OsError. */
export function sendDatagram(path: string, text: string): void {
  const fd = openSocket(path, SOCK_DGRAM);
  try {
    let length = fillPath(path);
    if (path.startsWith('@')) {
      scratchBytes[2] = 0;
      length--; // no zero at its end
    }
    check(connectCall(fd, scratch.address, length), 'connect', path);
    const bytes = Buffer.from(text);
    const sent = sendBytes(fd, bytes, bytes.length);
    if (sent < 0) throw new OsError('send', -sent, path);
  } finally {
    closeSync(fd);
  }
}

function openSocket(about: string, type = SOCK_STREAM): number {
  return check(socketCall(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket', about);
}

/** Writes a sockaddr_un to scratch; its length. */
function fillPath(path: string): number {
  const bytes = Buffer.from(path);
  if (bytes.length === 0 || bytes.length > PATH_MAX || bytes.includes(0)) {
    throw new RangeError(`socket path ${path}: expected 1 to ${PATH_MAX} bytes without a zero, got ${bytes.length}`);
  }
  scratchView.setUint16(0, AF_UNIX, true);
  scratchBytes.set(bytes, 2);
  scratchBytes[2 + bytes.length] = 0;
  return 3 + bytes.length;
}

const bind = (fd: number, path: string): number => orError(bindCall(fd, scratch.address, fillPath(path)));

/** Removes a socket at which nobody listens. */
function removeDead(path: string): boolean {
  if (!lstatSync(path).isSocket()) return false;
  try {
    closeSync(connectUnix(path));
    return false;
  } catch (error) {
    if ((error as OsError).code !== 'ECONNREFUSED') return false;
  }
  unlinkSync(path);
  return true;
}
