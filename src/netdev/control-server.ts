// The control socket of a running interface, its own side. Clients ask one thing after the other and get answers in that
// order; operations of all clients on the interface run one at a time, as under the kernel's rtnl lock.
import { chmodSync, rmSync, statSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { registerCleanup } from '../memory/cleanup.js';
import { openRunDirectory, RunDirectoryError } from '../memory/rundir.js';
import { type NetdevControl, NetdevError } from './control.js';
import { LineReader } from './control-lines.js';
import { controlPath, controlPaths } from './control-path.js';
import {
  BadRequest,
  encodeError,
  encodeResult,
  type InterfaceInfo,
  parseRequest,
  REQUEST_MAX_BYTES,
  type Request,
} from './control-protocol.js';

/** What the socket speaks for. */
export interface ControlOwner {
  readonly control: NetdevControl;
  /** Name and namespace as they are now; both can change under us. */
  info(): InterfaceInfo;
  /** Prometheus text. */
  metrics(): string;
  /** Somebody wants the interface down: begins it and returns. Whoever asked waits until the server is closed. */
  down(): void;
}

export interface ControlServerOptions {
  /** Default: this user's. */
  readonly runDirectory?: string;
  readonly maxClients?: number;
  /** A client that begins no request, or does not finish one, for so long is let go, ms. */
  readonly idleMs?: number;
  /** How long an operation may wait for, or take, its turn, ms. */
  readonly operationMs?: number;
}

const MAX_CLIENTS = 32;
const IDLE_MS = 30_000;
const OPERATION_MS = 30_000;
/** How long close() leaves clients to take their last reply, ms. */
const CLOSE_MS = 1000;
const PROBE_MS = 2000;
const YOUNG_MS = 5000;
/** A socket that nobody answers at is left alone so long, ms. */
const STALE_MS = 60_000;
/** Lines of one client that wait for their turn. */
const MAX_WAITING = 16;

export class ControlServer {
  readonly path: string;
  readonly #owner: ControlOwner;
  readonly #server: Server;
  readonly #options: Required<Omit<ControlServerOptions, 'runDirectory'>>;
  /** How each connection ends in order: after the replies that are under way. */
  readonly #connections = new Map<Socket, () => void>();
  #turn: Promise<unknown> = Promise.resolve();
  #running = '';
  #closing: Promise<void> | undefined;
  #unregister: () => void = () => {};

  private constructor(path: string, owner: ControlOwner, options: ControlServerOptions) {
    this.path = path;
    this.#owner = owner;
    const { maxClients = MAX_CLIENTS, idleMs = IDLE_MS, operationMs = OPERATION_MS } = options;
    this.#options = { maxClients, idleMs, operationMs };
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
    this.#server.maxConnections = maxClients;
  }

  /** Listens. A socket that a dead process left is replaced. Throws NetdevError (EBUSY: a live process answers at this
   *  name and namespace), RunDirectoryError. */
  static async start(owner: ControlOwner, options: ControlServerOptions = {}): Promise<ControlServer> {
    const { interface: name, network } = owner.info();
    const runDirectory = openRunDirectory(options.runDirectory);
    const path = controlPath(name, network, runDirectory);
    if (await answers(path))
      throw new NetdevError('EBUSY', `interface ${name}`, `another process answers at its control socket ${path}`);
    rmSync(path, { force: true });
    const server = new ControlServer(path, owner, options);
    await server.#listen();
    await removeStale(runDirectory);
    return server;
  }

  /** Stops listening, removes the socket, and ends all connections after the replies that are under way. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  #listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      const failed = (error: Error) => reject(new RunDirectoryError(`${this.path}: ${error.message}`));
      this.#server.once('error', failed);
      this.#server.listen(this.path, () => {
        this.#server.off('error', failed);
        // An error of a later accept (too many files) concerns that client only.
        this.#server.on('error', () => {});
        chmodSync(this.path, 0o600);
        this.#unregister = registerCleanup(() => rmSync(this.path, { force: true }));
        resolve();
      });
    });
  }

  async #close(): Promise<void> {
    this.#unregister();
    // Removes the file as well.
    const over = new Promise((resolve) => this.#server.close(resolve));
    for (const end of this.#connections.values()) end();
    const late = setTimeout(() => {
      for (const socket of this.#connections.keys()) socket.destroy();
    }, CLOSE_MS);
    await over;
    clearTimeout(late);
  }

  #accept(socket: Socket): void {
    const reader = new LineReader(REQUEST_MAX_BYTES);
    const waiting: string[] = [];
    let busy = false;
    let ended = false;
    // While a reply is being made the client has nothing to do but wait.
    const idle = () => socket.setTimeout(busy ? 0 : this.#options.idleMs);
    const end = () => {
      ended = true;
      if (!busy) socket.end();
    };
    this.#connections.set(socket, end);
    const refuse = (problem: string) => {
      waiting.length = 0;
      socket.end(encodeError(0, new NetdevError('EINVAL', 'request', problem)));
    };
    const work = async () => {
      busy = true;
      idle();
      for (let line = waiting.shift(); line !== undefined && socket.writable; line = waiting.shift()) {
        const { reply, after } = await this.#answer(line);
        // Who does not read gets no more: the next answer waits until this one has gone.
        if (!socket.write(reply)) await drained(socket, this.#options.idleMs);
        after?.();
      }
      busy = false;
      if (ended) socket.end();
      else idle();
    };
    socket.on('data', (data) => {
      const lines = reader.push(data);
      if (lines === undefined) return refuse(`expected a line of at most ${REQUEST_MAX_BYTES} bytes`);
      waiting.push(...lines);
      if (waiting.length > MAX_WAITING) return refuse(`expected at most ${MAX_WAITING} requests at once`);
      if (!busy) void work();
    });
    // Who sends no more may still be reading.
    socket.on('end', end);
    socket.on('timeout', () => socket.destroy());
    // A client may go at any time; what it asked for is done all the same.
    socket.on('error', () => {});
    socket.on('close', () => {
      waiting.length = 0;
      this.#connections.delete(socket);
    });
    idle();
  }

  /** A reply, and what is to be done when it is on its way. */
  async #answer(line: string): Promise<{ reply: string; after?: () => void }> {
    let request: Request;
    try {
      request = parseRequest(line);
    } catch (error) {
      return { reply: encodeError(error instanceof BadRequest ? error.id : 0, error) };
    }
    const { id, op } = request;
    try {
      const reply = encodeResult(id, op, await this.#perform(request));
      return op === 'down' ? { reply, after: () => this.#owner.down() } : { reply };
    } catch (error) {
      return { reply: encodeError(id, error) };
    }
  }

  /** What concerns the process and not the interface is answered at once, even while the interface is busy. */
  #perform(request: Request): unknown {
    switch (request.op) {
      case 'info':
        return this.#owner.info();
      case 'metrics':
        return this.#owner.metrics();
      case 'down':
        return undefined;
      default:
        return this.#inTurn(request.op, () => perform(this.#owner.control, request));
    }
  }

  #inTurn<T>(op: string, work: () => Promise<T>): Promise<T> {
    let started = false;
    let abandoned = false;
    const mine = this.#turn.then(() => {
      // Its client was told that it did not happen.
      if (abandoned) throw new NetdevError('EBUSY', op, 'given up');
      started = true;
      this.#running = op;
      return work();
    });
    // The next turn begins when this one is really over, not when its client is told that it takes too long.
    this.#turn = mine.catch(() => {});
    const { operationMs } = this.#options;
    return within(mine, operationMs, () => {
      abandoned = !started;
      return new NetdevError(
        started ? 'ETIMEDOUT' : 'EBUSY',
        this.#owner.info().interface,
        `${op}: expected an end within ${operationMs} ms, but ${this.#running} is still under way`,
      );
    });
  }
}

async function perform(control: NetdevControl, request: Request): Promise<unknown> {
  switch (request.op) {
    case 'setFeatures':
      return control.setFeatures(request.args.wanted);
    case 'setChannels':
      return control.setChannels(request.args.combined);
    case 'setRings':
      return control.setRings(request.args);
    case 'setRss':
      return control.setRss(request.args);
    case 'setCoalescing':
      return control.setCoalescing(request.args);
    case 'flowHash':
      return control.flowHash(request.args.flow);
    case 'setFlowHash':
      return control.setFlowHash(request.args.flow, request.args.level);
    case 'info':
    case 'metrics':
    case 'down':
      throw new Error(`${request.op} is none of the interface's operations`);
    default:
      return control[request.op]();
  }
}

/** Sockets whose process was killed. A young one may be about to listen. */
async function removeStale(runDirectory: string): Promise<void> {
  for (const path of controlPaths(runDirectory)) {
    const status = statSync(path, { throwIfNoEntry: false });
    if (!status?.isSocket() || Date.now() - status.mtimeMs < STALE_MS) continue;
    if (!(await answers(path))) rmSync(path, { force: true });
  }
}

/** Removes the sockets of interfaces whose process was killed. */
export async function removeDeadSockets(runDirectory?: string): Promise<void> {
  for (const path of controlPaths(runDirectory)) {
    const made = statSync(path, { throwIfNoEntry: false })?.mtimeMs;
    // One that was made just now may not listen yet.
    if (made === undefined || Date.now() - made < YOUNG_MS || (await answers(path))) continue;
    rmSync(path, { force: true });
  }
}

/** True when somebody listens there. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const say = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(PROBE_MS, () => say(true));
    socket.once('connect', () => say(true));
    socket.once('error', () => say(false));
  });
}

function drained(socket: Socket, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const late = setTimeout(() => socket.destroy(), ms);
    const over = () => {
      clearTimeout(late);
      resolve();
    };
    socket.once('drain', over);
    socket.once('close', over);
  });
}

/** `work`'s outcome, or the error when it takes longer. */
function within<T>(work: Promise<T>, ms: number, late: () => Error): Promise<T> {
  return new Promise((resolve, reject) => {
    // An operation that never ends must not keep the process.
    const timer = setTimeout(() => reject(late()), ms).unref();
    const over = () => clearTimeout(timer);
    work.then(resolve, reject).finally(over);
  });
}
