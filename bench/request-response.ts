// A process that asks or answers over one TCP connection, as netperf's TCP_RR: `server ADDRESS PORT` says "ready" and echoes
// until the other side closes; `client ADDRESS PORT BYTES MS` prints how many round trips there were, and how long they took.
// Blocking calls: an event loop would cost more than what is measured.
import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { allocateOffHeap, check, declare, type OffHeap } from '../src/memory/os/libc.js';
import { setParentDeathSignal } from '../src/memory/os/process.js';

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const SOCKADDR_BYTES = 16;
const BYTES_MAX = 65_536;
/** Round trips before the measured ones: addresses are found, code is compiled. */
const WARM_UP = 500;

/** Microseconds, medians and the rest of them. */
export interface Exchanged {
  readonly perSecond: number;
  readonly p50: number;
  readonly p99: number;
}

const socketCall = declare('int socket(int domain, int type, int protocol)');
const bindCall = declare('int bind(int fd, uint64 address, uint bytes)');
const listenCall = declare('int listen(int fd, int backlog)');
const acceptCall = declare('int accept4(int fd, uint64 address, uint64 bytes, int flags)');
const connectCall = declare('int connect(int fd, uint64 address, uint bytes)');
const setOption = declare('int setsockopt(int fd, int level, int name, uint64 value, uint bytes)');
const sendCall = declare('int64 send(int fd, uint64 from, uint64 bytes, int flags)');
const recvCall = declare('int64 recv(int fd, uint64 to, uint64 bytes, int flags)');

/** A sockaddr_in; behind it an int 1 for options. */
function endpoint(address: string, port: number): OffHeap {
  const memory = allocateOffHeap(SOCKADDR_BYTES + 4);
  const view = new DataView(memory.buffer);
  view.setUint16(0, AF_INET, true);
  view.setUint16(2, port);
  for (const [i, part] of address.split('.').entries()) view.setUint8(4 + i, Number(part));
  view.setInt32(SOCKADDR_BYTES, 1, true);
  return memory;
}

const setOne = (fd: number, level: number, name: number, memory: OffHeap) =>
  check(setOption(fd, level, name, memory.address + SOCKADDR_BYTES, 4), 'setsockopt', `${level}, ${name}`);

/** Receives exactly that many bytes; false at the end of the connection. */
function receiveAll(fd: number, memory: OffHeap, bytes: number): boolean {
  for (let got = 0; got < bytes; ) {
    const part = check(recvCall(fd, memory.address + got, bytes - got, 0), 'recv', 'of an answer');
    if (part === 0) return false;
    got += part;
  }
  return true;
}

function server(address: string, port: number): void {
  const where = endpoint(address, port);
  const listener = check(socketCall(AF_INET, SOCK_STREAM, 0), 'socket', 'of the server');
  setOne(listener, SOL_SOCKET, SO_REUSEADDR, where);
  check(bindCall(listener, where.address, SOCKADDR_BYTES), 'bind', `${address}:${port}`);
  check(listenCall(listener, 1), 'listen', `${address}:${port}`);
  process.stdout.write('ready\n');
  const fd = check(acceptCall(listener, 0, 0, 0), 'accept', 'of the client');
  setOne(fd, IPPROTO_TCP, TCP_NODELAY, where);
  const buffer = allocateOffHeap(BYTES_MAX);
  for (;;) {
    const got = recvCall(fd, buffer.address, BYTES_MAX, 0);
    if (got <= 0) break; // closed, or reset
    if (sendCall(fd, buffer.address, got, 0) < got) break;
  }
  closeSync(fd);
  closeSync(listener);
}

function client(address: string, port: number, bytes: number, ms: number): Exchanged {
  const where = endpoint(address, port);
  const fd = check(socketCall(AF_INET, SOCK_STREAM, 0), 'socket', 'of the client');
  check(connectCall(fd, where.address, SOCKADDR_BYTES), 'connect', `${address}:${port}`);
  setOne(fd, IPPROTO_TCP, TCP_NODELAY, where);
  const buffer = allocateOffHeap(BYTES_MAX);
  const once = () => {
    check(sendCall(fd, buffer.address, bytes, 0), 'send', `of ${bytes} bytes`);
    if (!receiveAll(fd, buffer, bytes)) throw new Error(`${address}:${port} closed the connection`);
  };
  for (let i = 0; i < WARM_UP; i++) once();
  const us: number[] = [];
  const began = performance.now();
  let now = began;
  while (now - began < ms) {
    once();
    const next = performance.now();
    us.push((next - now) * 1000);
    now = next;
  }
  closeSync(fd);
  us.sort((a, b) => a - b);
  const part = (share: number) => us[Math.min(us.length - 1, Math.floor(us.length * share))]!;
  return { perSecond: (us.length / (now - began)) * 1000, p50: part(0.5), p99: part(0.99) };
}

setParentDeathSignal(constants.signals.SIGKILL);
const [role, address = '', port = '', bytes = '', ms = ''] = process.argv.slice(2);
if (role === 'server') server(address, Number(port));
else process.stdout.write(`${JSON.stringify(client(address, Number(port), Number(bytes), Number(ms)))}\n`);
