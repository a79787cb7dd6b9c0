// The control socket of a running interface, the side of those who ask: `netvsc ethtool`, `netvsc down`.
import { connect, type Socket } from 'node:net';
import { type NetdevControl, NetdevError } from './control.js';
import { LineReader } from './control-lines.js';
import { controlPath, controlPaths, networkOf } from './control-path.js';
import {
  type Arguments,
  encodeRequest,
  type InterfaceInfo,
  type OperationName,
  parseReply,
  REPLY_MAX_BYTES,
  type Result,
} from './control-protocol.js';

/** NetdevControl from another process. */
export type RemoteNetdev = {
  readonly [K in keyof NetdevControl]: (
    ...args: Parameters<NetdevControl[K]>
  ) => Promise<Awaited<ReturnType<NetdevControl[K]>>>;
};

export interface FindOptions {
  /** Namespace of the interface, as networkOf() numbers it. Default: the calling thread's. */
  readonly network?: string;
  /** Default: this user's. */
  readonly runDirectory?: string;
  /** How long connecting or a request may take, ms. */
  readonly timeoutMs?: number;
}

const CONNECT_MS = 5000;
/** Longer than the server takes to say that something takes too long. */
const REQUEST_MS = 45_000;

export class ControlClient {
  readonly path: string;
  readonly #socket: Socket;
  readonly #timeoutMs: number;
  readonly #ended: Promise<void>;
  readonly #reader = new LineReader(REPLY_MAX_BYTES);
  readonly #lines: string[] = [];
  #failure: NetdevError | undefined;
  #wake: () => void = () => {};
  #turn: Promise<unknown> = Promise.resolve();
  #id = 0;

  private constructor(path: string, socket: Socket, timeoutMs: number) {
    this.path = path;
    this.#socket = socket;
    this.#timeoutMs = timeoutMs;
    this.#ended = new Promise((resolve) => {
      socket.once('close', () => {
        this.#fail('ENODEV', 'the interface went away');
        resolve();
      });
    });
    socket.on('data', (data) => {
      const lines = this.#reader.push(data);
      if (lines) this.#lines.push(...lines);
      else {
        this.#fail('EIO', `expected replies of at most ${REPLY_MAX_BYTES} bytes`);
        socket.destroy();
      }
      this.#wake();
    });
    socket.on('error', (error) => this.#fail('EIO', error.message));
  }

  /** Throws NetdevError: ENODEV (nobody listens there), EPERM, ETIMEDOUT, EIO. */
  static open(path: string, timeoutMs?: number): Promise<ControlClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      const fail = (error: NetdevError) => {
        socket.destroy();
        reject(error);
      };
      const late = timeoutMs ?? CONNECT_MS;
      socket.setTimeout(late, () =>
        fail(new NetdevError('ETIMEDOUT', path, `nobody takes the call within ${late} ms`)),
      );
      socket.once('error', (error: NodeJS.ErrnoException) => fail(connectError(path, error)));
      socket.once('connect', () => {
        socket.setTimeout(0);
        socket.removeAllListeners();
        resolve(new ControlClient(path, socket, timeoutMs ?? REQUEST_MS));
      });
    });
  }

  /** Requests of one client are answered one after the other. Throws NetdevError, the other side's or ETIMEDOUT, ENODEV
   *  (the interface went away), EIO; ShapeError when the reply is none. */
  request<N extends OperationName>(op: N, args: Arguments<N>): Promise<Result<N>> {
    const result = this.#turn.then(() => this.#ask(op, args));
    this.#turn = result.catch(() => {});
    return result;
  }

  /** The interface behind the socket. */
  remote(): RemoteNetdev {
    const ask =
      <N extends OperationName>(op: N) =>
      () =>
        this.request(op, undefined as Arguments<N>);
    return {
      driverInfo: ask('driverInfo'),
      link: ask('link'),
      features: ask('features') as RemoteNetdev['features'],
      setFeatures: (wanted) => this.request('setFeatures', { wanted }),
      channels: ask('channels'),
      setChannels: (combined) => this.request('setChannels', { combined }),
      rings: ask('rings'),
      setRings: (sizes) => this.request('setRings', sizes),
      rss: ask('rss'),
      setRss: (change) => this.request('setRss', change),
      flowHash: (flow) => this.request('flowHash', { flow }),
      setFlowHash: (flow, level) => this.request('setFlowHash', { flow, level }),
      coalescing: ask('coalescing'),
      setCoalescing: (change) => this.request('setCoalescing', change as Arguments<'setCoalescing'>),
      pause: ask('pause'),
      registers: ask('registers'),
      permanentAddress: ask('permanentAddress'),
      statistics: ask('statistics'),
    };
  }

  /** Resolves when the other side has ended the connection, as it does when the interface is down. Throws NetdevError
   *  (ETIMEDOUT). */
  async ended(ms: number): Promise<void> {
    let late: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_, reject) => {
      late = setTimeout(
        () => reject(new NetdevError('ETIMEDOUT', this.path, `the interface is not down after ${ms} ms`)),
        ms,
      );
    });
    try {
      await Promise.race([this.#ended, timeout]);
    } finally {
      clearTimeout(late);
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  async #ask<N extends OperationName>(op: N, args: Arguments<N>): Promise<Result<N>> {
    if (this.#failure) throw this.#failure;
    const id = ++this.#id;
    this.#socket.write(encodeRequest(id, op, args));
    return parseReply(await this.#line(op), id, op);
  }

  async #line(op: string): Promise<string> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#wake();
    }, this.#timeoutMs);
    try {
      for (;;) {
        const line = this.#lines.shift();
        if (line !== undefined) return line;
        if (this.#failure) throw this.#failure;
        if (late) {
          // A reply that comes after all would be taken for the next one's.
          this.close();
          throw new NetdevError('ETIMEDOUT', this.path, `${op}: no reply within ${this.#timeoutMs} ms`);
        }
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #fail(code: 'ENODEV' | 'EIO', problem: string): void {
    this.#failure ??= new NetdevError(code, this.path, problem);
    this.#wake();
  }
}

/** Connects to the interface of that name in that namespace, also when it was renamed or moved since it came up. Throws
 *  NetdevError (ENODEV: there is none). */
export async function findControl(name: string, options: FindOptions = {}): Promise<ControlClient> {
  const { network = networkOf('this thread'), runDirectory, timeoutMs } = options;
  const first = controlPath(name, network, runDirectory);
  const paths = controlPaths(runDirectory);
  const inOrder = paths.includes(first) ? [first, ...paths.filter((path) => path !== first)] : paths;
  let elsewhere = false;
  const meant = (info: InterfaceInfo) => {
    if (info.interface !== name) return false;
    elsewhere ||= info.network !== network;
    return info.network === network;
  };
  for (const path of inOrder) {
    const found = await ifMeant(path, timeoutMs, meant);
    if (found) return found.client;
  }
  const problem = 'expected one that `netvsc up` runs in this network namespace';
  const hint = elsewhere ? '; there is one in another: name that with --netns' : '';
  throw new NetdevError('ENODEV', `interface ${name}`, problem + hint);
}

/** All interfaces that answer. */
export async function listControls(options: Omit<FindOptions, 'network'> = {}): Promise<InterfaceInfo[]> {
  const infos: InterfaceInfo[] = [];
  for (const path of controlPaths(options.runDirectory)) {
    const found = await ifMeant(path, options.timeoutMs, () => true);
    if (!found) continue;
    infos.push(found.info);
    found.client.close();
  }
  return infos;
}

async function ifMeant(
  path: string,
  timeoutMs: number | undefined,
  meant: (info: InterfaceInfo) => boolean,
): Promise<{ client: ControlClient; info: InterfaceInfo } | undefined> {
  let client: ControlClient | undefined;
  try {
    client = await ControlClient.open(path, timeoutMs);
    const info = await client.request('info', undefined);
    if (meant(info)) return { client, info };
  } catch (error) {
    // One that is going away, or hangs, is not looked for here, and must not keep others from being found.
    if (!(error instanceof Error)) throw error;
  }
  client?.close();
  return undefined;
}

function connectError(path: string, error: NodeJS.ErrnoException): NetdevError {
  const { code, message } = error;
  if (code === 'ENOENT' || code === 'ECONNREFUSED') return new NetdevError('ENODEV', path, 'nobody listens');
  if (code === 'EACCES' || code === 'EPERM') return new NetdevError('EPERM', path, message);
  return new NetdevError('EIO', path, message);
}
