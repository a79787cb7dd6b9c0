// UDP flow by the kernel's stack: numbered, hashed datagrams in windows; the receiver says how many have arrived.
import { createSocket, type Socket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Payload } from './payload.js';
import type { Progress } from './protocol.js';
import {
  CONTROL,
  CONTROL_BYTES,
  CONTROL_MAGIC,
  datagramCost,
  makeDatagram,
  UdpChecker,
  type UdpSent,
  type UdpVerdict,
  WINDOW_BYTES,
  WINDOW_DATAGRAMS,
} from './udp-schedule.js';

/** How long the receiver may hear nothing, and how long the sender goes on asking. */
const SILENCE_MS = 10_000;
const ANSWER_MS = 250;
/** Accounts that may say less than was sent before the rest is taken for lost. */
const SHORT_ACCOUNTS = 4;
const SHORT_MS = 20;
const PROGRESS_MS = 200;
/** How long the receiver goes on answering after the end: its last answer may be lost too. */
const LINGER_MS = 1000;
/** As much as the kernel allows. */
const BUFFER_BYTES = 1 << 20;

interface Control {
  readonly kind: number;
  readonly token: number;
  readonly value: number;
}

function encodeControl({ kind, token, value }: Control): Buffer {
  const bytes = Buffer.alloc(CONTROL_BYTES);
  bytes.writeUInt32BE(CONTROL_MAGIC, 0);
  bytes.writeUInt32BE(kind, 4);
  bytes.writeUInt32BE(token, 8);
  bytes.writeUInt32BE(value, 12);
  return bytes;
}

function decodeControl(datagram: Buffer): Control | undefined {
  if (datagram.length !== CONTROL_BYTES || datagram.readUInt32BE(0) !== CONTROL_MAGIC) return undefined;
  return { kind: datagram.readUInt32BE(4), token: datagram.readUInt32BE(8), value: datagram.readUInt32BE(12) };
}

const open = (address: string): Socket =>
  createSocket({
    type: isIPv6(address) ? 'udp6' : 'udp4',
    recvBufferSize: BUFFER_BYTES,
    sendBufferSize: BUFFER_BYTES,
  });

/** Receives and checks until the sender says that it has ended. Rejects after SILENCE_MS without a datagram. */
export function receiveDatagrams(
  options: { readonly address: string; readonly sizes: readonly number[] },
  report: (progress: Progress) => void,
): Promise<UdpVerdict> {
  const socket = open(options.address);
  const checker = new UdpChecker(options.sizes);
  return new Promise((resolve, reject) => {
    let ended = false;
    const fail = (error: Error) => {
      clearTimeout(silence);
      if (!ended) socket.close();
      ended = true;
      reject(new Error(`UDP at ${options.address}: ${error.message}`));
    };
    const silence = setTimeout(() => fail(new Error(`nothing came for ${SILENCE_MS} ms`)), SILENCE_MS);
    socket.on('error', fail);
    socket.on('message', (datagram, from) => {
      silence.refresh();
      const control = decodeControl(datagram);
      if (!control) {
        if (!ended) checker.take(datagram);
        return;
      }
      const account = { kind: CONTROL.ACCOUNT, token: control.token, value: checker.arrived };
      socket.send(encodeControl(account), from.port, from.address);
      if (control.kind !== CONTROL.END || ended) return;
      ended = true;
      clearTimeout(silence);
      setTimeout(() => socket.close(), LINGER_MS).unref();
      resolve(checker.verdict(control.value));
    });
    socket.bind({ address: options.address, port: 0 }, () => report({ port: socket.address().port }));
  });
}

/** Sends `datagrams` datagrams, fewer when `seconds` are over. Rejects when the receiver does not answer. */
export async function sendDatagrams(
  options: {
    readonly address: string;
    readonly port: number;
    readonly seed: number;
    readonly sizes: readonly number[];
    readonly datagrams: number;
    readonly seconds?: number;
  },
  report: (progress: Progress) => void,
): Promise<UdpSent> {
  const socket = open(options.address);
  const payload = new Payload(options.seed);
  const start = performance.now();
  const until = options.seconds === undefined ? Number.POSITIVE_INFINITY : start + options.seconds * 1000;
  let bytes = 0;
  const timer = setInterval(() => report({ bytes }), PROGRESS_MS);
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.connect(options.port, options.address, resolve);
    });
    socket.removeAllListeners('error');
    const receiver = new Receiver(socket);
    let sent = 0;
    while (sent < options.datagrams && performance.now() < until) {
      const window: Buffer[] = [];
      for (let cost = 0; window.length < WINDOW_DATAGRAMS && sent + window.length < options.datagrams; ) {
        const next = makeDatagram(payload, options.sizes, sent + window.length);
        cost += datagramCost(next.length);
        if (cost > WINDOW_BYTES && window.length > 0) break;
        window.push(next);
        bytes += next.length;
      }
      await Promise.all(window.map((datagram) => send(socket, datagram)));
      sent += window.length;
      await receiver.waitFor(sent);
    }
    await receiver.end(sent);
    return { datagrams: sent, bytes, seconds: (performance.now() - start) / 1000, retries: receiver.retries };
  } catch (error) {
    throw new Error(`UDP to ${options.address}: ${(error as Error).message}`);
  } finally {
    clearInterval(timer);
    socket.close();
  }
}

const send = (socket: Socket, datagram: Buffer): Promise<void> =>
  new Promise((resolve, reject) => {
    socket.send(datagram, (error) => (error ? reject(error) : resolve()));
  });

/** The other end, as the sender sees it: asks it how much has arrived. */
class Receiver {
  retries = 0;
  readonly #socket: Socket;
  #token = 0;
  /** Given up for lost, so that later windows need not wait for them. */
  #missing = 0;
  #heard: ((control: Control) => void) | undefined;
  #failure: Error | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('message', (datagram) => {
      const control = decodeControl(datagram);
      if (control?.kind === CONTROL.ACCOUNT) this.#heard?.(control);
    });
    socket.on('error', (error) => {
      this.#failure = error;
    });
  }

  /** Waits until `sent` datagrams have arrived, or the rest must be lost. */
  async waitFor(sent: number): Promise<void> {
    for (let short = 0; ; short++) {
      const arrived = await this.#ask(CONTROL.ASK, 0);
      if (arrived + this.#missing >= sent) return;
      if (short === SHORT_ACCOUNTS) {
        this.#missing = sent - arrived;
        return;
      }
      await sleep(SHORT_MS);
    }
  }

  async end(sent: number): Promise<void> {
    await this.#ask(CONTROL.END, sent);
  }

  async #ask(kind: number, value: number): Promise<number> {
    const token = ++this.#token;
    const question = encodeControl({ kind, token, value });
    for (let waited = 0; waited < SILENCE_MS; waited += ANSWER_MS) {
      if (this.#failure) throw this.#failure;
      const answer = this.#answer(token);
      await send(this.#socket, question);
      const arrived = await answer;
      if (arrived !== undefined) return arrived;
      this.retries++;
    }
    throw new Error(`no answer in ${SILENCE_MS} ms`);
  }

  #answer(token: number): Promise<number | undefined> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(undefined), ANSWER_MS);
      this.#heard = (control) => {
        if (control.token !== token) return;
        clearTimeout(timer);
        resolve(control.value);
      };
    });
  }
}
