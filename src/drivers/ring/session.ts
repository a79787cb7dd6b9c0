// A net_ring between two processes, as control code sees it. Whoever comes first listens on a Unix socket, the other one connects;
// the listener makes the shared file. The socket tells when a peer dies; then the other end listens or connects anew. Everything that comes
// from the peer is checked here or in the compiled data path.
import { closeSync, rmSync } from 'node:fs';
import type { Arena } from '../../memory/arena.js';
import { SHARED_RING_DATA, SHARED_SLOT_BYTES } from '../../memory/layout.js';
import { ERRNO, errorName, type OsError } from '../../memory/os/libc.js';
import { createSealedMemory, openShared } from '../../memory/os/memfd.js';
import {
  acceptUnix,
  CLOSED,
  connectUnix,
  listenUnix,
  type PeerCredentials,
  peerCredentials,
  receiveBytes,
  receiveWord,
  sendBytes,
  sendWord,
} from '../../memory/os/socket.js';
import { RING_ANSWER, RING_PURPOSE, RING_WORD, RingHello, RingWelcome } from '../../wire/ring-link.js';

/** Queues in each direction, and slots of each (1 MiB): what who listens offers. */
export const SESSION_QUEUES = 16;
const SLOTS = 16_384;
const SLOTS_MIN = 2048;
const SLOTS_MAX = 65_536;
const QUEUES_MAX = 64;
/** How long a peer may take for each step of the opening, and how soon to try again after a failure. */
const PATIENCE_MS = 2000;
const RETRY_MS = 200;
const PENDING_MAX = 2 * QUEUES_MAX;
const AGAIN = -ERRNO.EAGAIN!;
/** What a connection gives that its peer closed with something unread in it. */
const RESET = -ERRNO.ECONNRESET!;

/** Two ends that are joined. */
export interface Session {
  readonly queues: number;
  readonly slots: number;
  /** Arena addresses of the SHARED_RINGs that this end writes and reads, by queue. */
  readonly tx: readonly number[];
  readonly rx: readonly number[];
  /** Sockets by queue: who sends on the queue writes a word, who receives on it waits. */
  readonly wakeFds: readonly number[];
}

export interface SessionOwner {
  /** A peer is there. */
  join(session: Session): void;
  /** It is gone: from the return on nothing of the session is touched any more. */
  leave(): void;
  /** The peer takes packets, or does not; how many queues it sends on. */
  peerUp(up: boolean, txQueues: number): void;
  /** Something the user should know. */
  log(line: string): void;
}

type Stage = 'alone' | 'welcome' | 'ready' | 'joined';

export class RingSession {
  readonly #arena: Arena;
  readonly #path: string;
  readonly #name: string;
  readonly #owner: SessionOwner;
  #listener = -1;
  /** Connections that have not said what they are for. */
  #pending: { readonly fd: number; readonly until: number }[] = [];
  #stage: Stage = 'alone';
  #control = -1;
  #queueFds: number[] = [];
  #number = 0;
  #memory:
    | { readonly address: number; readonly fd: number; readonly queues: number; readonly slots: number }
    | undefined;
  #until = 0;
  #retryAt = 0;
  #ownWord: number = RING_WORD.DOWN;
  #said = '';

  /** Throws OsError: nothing can be made at `path`. */
  constructor(arena: Arena, name: string, path: string, owner: SessionOwner) {
    this.#arena = arena;
    this.#name = name;
    this.#path = path;
    this.#owner = owner;
    this.#seek(performance.now());
  }

  /** Says to the peer whether this end takes packets, and on how many queues it sends. */
  setUp(up: boolean, txQueues: number): void {
    this.#ownWord = up ? RING_WORD.UP | (txQueues << 8) : RING_WORD.DOWN;
    if (this.#stage === 'joined') sendWord(this.#control, this.#ownWord);
  }

  /** Ends the session, with the reason for the user; a new one may follow. */
  drop(reason: string, nowMs: number): void {
    this.#note(reason);
    this.#end(nowMs);
  }

  tick(nowMs: number): void {
    try {
      if (this.#stage === 'alone' && this.#listener < 0 && nowMs >= this.#retryAt) this.#seek(nowMs);
      if (this.#control >= 0) this.#listen(nowMs);
      if (this.#listener >= 0) this.#admit(nowMs);
    } catch (error) {
      this.drop((error as Error).message, nowMs);
    }
  }

  close(): void {
    this.#end(0);
    for (const { fd } of this.#pending) closeSync(fd);
    this.#pending = [];
    if (this.#listener < 0) return;
    rmSync(this.#path, { force: true });
    closeSync(this.#listener);
    this.#listener = -1;
  }

  /** Connects to who listens; listens if nobody does. */
  #seek(nowMs: number): void {
    this.#retryAt = nowMs + RETRY_MS;
    try {
      this.#control = connectUnix(this.#path);
      this.#checkPeer(this.#control);
      this.#send(this.#control, RingHello.encode({ purpose: RING_PURPOSE.CONTROL, session: 0, queue: 0 }));
      this.#enter('welcome', nowMs);
    } catch (error) {
      this.#end(nowMs);
      const { code } = error as OsError;
      if (code !== 'ECONNREFUSED' && code !== 'ENOENT') throw error;
      try {
        this.#listener = listenUnix(this.#path, PENDING_MAX);
      } catch (failure) {
        if ((failure as OsError).code !== 'EADDRINUSE') throw failure; // else somebody was quicker
      }
    }
  }

  #enter(stage: Stage, nowMs: number): void {
    this.#stage = stage;
    this.#until = nowMs + PATIENCE_MS;
  }

  /** Takes connections, and looks what each is for. */
  #admit(nowMs: number): void {
    while (this.#pending.length < PENDING_MAX) {
      const fd = acceptUnix(this.#listener);
      if (fd < 0) break;
      this.#pending.push({ fd, until: nowMs + PATIENCE_MS });
    }
    const waiting = this.#pending;
    this.#pending = [];
    for (const connection of waiting) {
      const hello = this.#hello(connection.fd);
      if (hello === 'later' && nowMs < connection.until) this.#pending.push(connection);
      else if (typeof hello === 'string' || !this.#place(connection.fd, hello, nowMs)) closeSync(connection.fd);
    }
  }

  /** What a connection says that it is for; 'bad' also when it ended. */
  #hello(fd: number): ReturnType<typeof RingHello.decode> | 'later' | 'bad' {
    const bytes = new Uint8Array(RingHello.size);
    const length = receiveBytes(fd, bytes);
    if (length === AGAIN) return 'later';
    try {
      if (length !== bytes.length) return 'bad';
      this.#checkPeer(fd);
      return RingHello.decode(bytes);
    } catch (error) {
      this.#note((error as Error).message);
      return 'bad';
    }
  }

  /** False: there is no use for the connection. */
  #place(fd: number, hello: ReturnType<typeof RingHello.decode>, nowMs: number): boolean {
    if (hello.purpose === RING_PURPOSE.CONTROL) {
      if (this.#stage !== 'alone') {
        const none = { session: 0, memory: 0, queues: 0, slots: 0 };
        sendBytes(fd, RingWelcome.encode({ answer: RING_ANSWER.BUSY, ...none }), RingWelcome.size);
        return false;
      }
      this.#control = fd;
      this.#welcome(nowMs);
      return true;
    }
    const { queue } = hello;
    const expected = this.#stage === 'ready' && hello.session === this.#number && queue < this.#memory!.queues;
    if (!expected || this.#queueFds[queue] !== undefined) return false;
    this.#queueFds[queue] = fd;
    return true;
  }

  /** Offers a new file to who connected. */
  #welcome(nowMs: number): void {
    const { fd } = createSealedMemory(this.#name, SESSION_QUEUES * 2 * areaBytes(SLOTS));
    this.#map(fd, SESSION_QUEUES, SLOTS);
    this.#number = (this.#number + 1) >>> 0;
    const offer = { session: this.#number, memory: fd, queues: SESSION_QUEUES, slots: SLOTS };
    this.#send(this.#control, RingWelcome.encode({ answer: RING_ANSWER.JOIN, ...offer }));
    this.#enter('ready', nowMs);
  }

  /** What comes on the control connection. */
  #listen(nowMs: number): void {
    if (this.#stage === 'welcome') {
      this.#answer(nowMs);
      return;
    }
    for (;;) {
      const word = receiveWord(this.#control);
      if (word === AGAIN) break;
      if (word === CLOSED || word === RESET) {
        this.#end(nowMs);
        return;
      }
      if (word < 0) throw new Error(`the peer said something that is no word (${errorName(-word)})`);
      const what = word & 0xff;
      if (this.#stage === 'ready' && what === RING_WORD.READY) this.#join(nowMs);
      else if (this.#stage === 'joined' && what === RING_WORD.UP) this.#owner.peerUp(true, word >>> 8);
      else if (this.#stage === 'joined' && what === RING_WORD.DOWN) this.#owner.peerUp(false, 0);
      else throw new Error(`the peer said 0x${word.toString(16)} in state "${this.#stage}"`);
    }
    if (this.#stage === 'ready' && nowMs > this.#until)
      throw new Error(`the peer did not open the shared file within ${PATIENCE_MS} ms`);
  }

  /** Takes the file that the listener offers, and makes a connection for each queue. */
  #answer(nowMs: number): void {
    const bytes = new Uint8Array(RingWelcome.size);
    const length = receiveBytes(this.#control, bytes);
    if (length === AGAIN) {
      if (nowMs > this.#until) throw new Error(`no answer from the process that listens at ${this.#path}`);
      return;
    }
    if (length === 0 || length === RESET) {
      this.#end(nowMs);
      return;
    }
    const { answer, session, memory, queues, slots } = RingWelcome.decode(bytes.subarray(0, Math.max(0, length)));
    if (answer !== RING_ANSWER.JOIN) throw new Error(`${this.#path} has two ends already`);
    const powerOfTwo = (slots & (slots - 1)) === 0;
    if (!(queues >= 1 && queues <= QUEUES_MAX && slots >= SLOTS_MIN && slots <= SLOTS_MAX && powerOfTwo)) {
      const expected = `1 to ${QUEUES_MAX} queues of ${SLOTS_MIN} to ${SLOTS_MAX} slots`;
      throw new Error(`expected ${expected}, the peer offers ${queues} of ${slots}`);
    }
    const { pid } = this.#checkPeer(this.#control);
    this.#map(openShared(`/proc/${pid}/fd/${memory}`, queues * 2 * areaBytes(slots)), queues, slots);
    for (let queue = 0; queue < queues; queue++) {
      const fd = connectUnix(this.#path);
      this.#queueFds[queue] = fd;
      this.#send(fd, RingHello.encode({ purpose: RING_PURPOSE.QUEUE, session, queue }));
    }
    sendWord(this.#control, RING_WORD.READY);
    this.#start(1);
  }

  /** The peer has the file: its connections for the queues wait to be accepted. */
  #join(nowMs: number): void {
    this.#admit(nowMs);
    const { queues } = this.#memory!;
    for (let queue = 0; queue < queues; queue++) {
      if (this.#queueFds[queue] === undefined) throw new Error(`no connection for queue ${queue}`);
    }
    this.#start(0);
  }

  /** `side`: 0 for who listened. */
  #start(side: 0 | 1): void {
    const { address, queues, slots } = this.#memory!;
    const area = (queue: number, from: number) => address + (queue * 2 + from) * areaBytes(slots);
    const rings = (from: number) => Array.from({ length: queues }, (_, queue) => area(queue, from));
    this.#stage = 'joined';
    this.#said = '';
    this.#owner.join({ queues, slots, tx: rings(side), rx: rings(1 - side), wakeFds: [...this.#queueFds] });
    sendWord(this.#control, this.#ownWord);
  }

  #map(fd: number, queues: number, slots: number): void {
    try {
      const address = this.#arena.mapFile(`${this.#name} peer`, fd, 0, queues * 2 * areaBytes(slots));
      this.#memory = { address, fd, queues, slots };
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  #end(nowMs: number): void {
    if (this.#stage === 'joined') this.#owner.leave();
    this.#stage = 'alone';
    this.#retryAt = nowMs + RETRY_MS;
    for (const fd of [this.#control, ...this.#queueFds]) if (fd !== undefined && fd >= 0) closeSync(fd);
    this.#control = -1;
    this.#queueFds = [];
    if (!this.#memory) return;
    this.#arena.release(this.#memory.address);
    closeSync(this.#memory.fd);
    this.#memory = undefined;
  }

  /** Only processes of this user may be at the other end. Throws Error. */
  #checkPeer(fd: number): PeerCredentials {
    const peer = peerCredentials(fd);
    const own = process.getuid!();
    if (peer.uid === own) return peer;
    throw new Error(`${this.#path}: expected a process of user ${own}, got one of user ${peer.uid}`);
  }

  #send(fd: number, bytes: Uint8Array): void {
    if (sendBytes(fd, bytes, bytes.length) !== bytes.length)
      throw new Error(`${this.#path}: the peer takes no message`);
  }

  /** The same thing is said once, until a session works. */
  #note(problem: string): void {
    if (problem === this.#said) return;
    this.#said = problem;
    this.#owner.log(`${this.#name}: ${problem}`);
  }
}

const areaBytes = (slots: number) => SHARED_RING_DATA + slots * SHARED_SLOT_BYTES;
