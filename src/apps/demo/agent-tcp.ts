// TCP transfers by the kernel's stack: one end sends pseudo-random bytes, both ends hash what they see.
import { createHash } from 'node:crypto';
import { connect, createServer, type Socket } from 'node:net';
import { CHUNK, Payload } from './payload.js';
import type { Progress, StreamResult } from './protocol.js';

/** A transfer in which nothing moves for so long has failed. */
const IDLE_MS = 10_000;
const PROGRESS_MS = 200;
const RECEIVE_BYTES = 1 << 20;

/** Listens at `address`, reports the port, and sends `bytes` bytes, or for `seconds` seconds when given, to the first who
 *  connects. Rejects when nobody does, or the connection fails. */
export function sendStream(
  options: { readonly address: string; readonly seed: number; readonly bytes: number; readonly seconds?: number },
  report: (progress: Progress) => void,
): Promise<StreamResult> {
  const server = createServer({ highWaterMark: 2 * CHUNK, noDelay: true });
  return new Promise((resolve, reject) => {
    const waiting = setTimeout(() => fail(new Error(`nobody connected in ${IDLE_MS} ms`)), IDLE_MS);
    const fail = (error: Error) => {
      clearTimeout(waiting);
      server.close();
      reject(new Error(`TCP from ${options.address}: ${error.message}`));
    };
    server.on('error', fail);
    server.once('connection', (socket) => {
      clearTimeout(waiting);
      server.close();
      writeAll(socket, options, report).then(resolve, fail);
    });
    server.listen({ host: options.address, port: 0 }, () => {
      const address = server.address();
      if (address && typeof address === 'object') report({ port: address.port });
    });
  });
}

function writeAll(
  socket: Socket,
  options: { readonly seed: number; readonly bytes: number; readonly seconds?: number },
  report: (progress: Progress) => void,
): Promise<StreamResult> {
  const payload = new Payload(options.seed);
  const hash = createHash('sha256');
  const start = performance.now();
  const until = options.seconds === undefined ? Number.POSITIVE_INFINITY : start + options.seconds * 1000;
  const total = options.seconds === undefined ? options.bytes : Number.MAX_SAFE_INTEGER;
  let bytes = 0;
  let chunks = 0;
  const pump = () => {
    let room = true;
    while (room && bytes < total && performance.now() < until) {
      const chunk = payload.chunk(chunks++, Math.min(CHUNK, total - bytes));
      room = socket.write(chunk);
      hash.update(chunk); // while the kernel sends it
      bytes += chunk.length;
    }
    if (room) socket.end();
    else socket.once('drain', pump);
  };
  return watch(socket, () => bytes, report, pump).then(() => ({
    bytes,
    seconds: (performance.now() - start) / 1000,
    hash: hash.digest('hex'),
  }));
}

/** Connects and takes everything until the other end has closed. */
export function receiveStream(
  options: { readonly address: string; readonly port: number },
  report: (progress: Progress) => void,
): Promise<StreamResult> {
  const hash = createHash('sha256');
  const start = performance.now();
  let bytes = 0;
  let last = start;
  const buffer = Buffer.allocUnsafeSlow(RECEIVE_BYTES);
  const onread = {
    buffer,
    callback: (length: number) => {
      hash.update(buffer.subarray(0, length));
      bytes += length;
      last = performance.now();
      return true;
    },
  };
  const socket = connect({ host: options.address, port: options.port, noDelay: true, onread });
  return watch(socket, () => bytes, report).then(
    () => ({ bytes, seconds: (last - start) / 1000, hash: hash.digest('hex') }),
    (error: Error) => {
      throw new Error(`TCP to ${options.address}: ${error.message}`);
    },
  );
}

/** Settles when the connection is closed; reports how far it is meanwhile. */
function watch(
  socket: Socket,
  bytes: () => number,
  report: (progress: Progress) => void,
  begin?: () => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setInterval(() => report({ bytes: bytes() }), PROGRESS_MS);
    let failure: Error | undefined;
    socket.setTimeout(IDLE_MS, () => socket.destroy(new Error(`nothing moved for ${IDLE_MS} ms`)));
    socket.on('error', (error) => {
      failure = error;
    });
    socket.on('close', () => {
      clearInterval(timer);
      if (failure) reject(new Error(`${failure.message} after ${bytes()} bytes`));
      else resolve();
    });
    begin?.();
  });
}
