// The guest's side of a device: five maps and an interrupt descriptor, from a machine directory or a kernel.
import { closeSync } from 'node:fs';
import type { Arena } from '../../memory/arena.js';
import { ERRNO } from '../../memory/os/libc.js';
import { lockFile } from '../../memory/os/process.js';
import { receiveWord, sendWord } from '../../memory/os/socket.js';
import { MonitorPage } from '../../wire/vmbus.js';
import { type GpadlRegion, type GuestMemory, type OpenChannel, type VmbusDevice, VmbusError } from '../device.js';
import { splitRings, zeroControlPage } from '../rings.js';
import { kernelRoot } from './kernel-root.js';
import { readMaps, type UioMap } from './maps.js';
import { machineRoot, type UioRoot } from './root.js';
import { type BusDevice, scanBus } from './scan.js';

export interface UioDeviceOptions {
  /** Guest memory to share with other devices of the same arena (default: one of its own). */
  readonly memory?: GuestMemory;
  /** How to reach its maps and interrupts (default: the kernel's way for the root "/", else a machine directory's). */
  readonly access?: UioRoot;
}

/**
 * The network device `uuid` of the machine directory `root`, or of this system ("/"), not yet open. Throws VmbusError when it is not there, has no
 * uio node, or its maps are not those of uio_hv_generic.
 */
export function openUioDevice(arena: Arena, root: string, uuid: string, options: UioDeviceOptions = {}): VmbusDevice {
  const { devices, problems } = scanBus(root);
  const found = devices.find((device) => device.uuid === uuid.toLowerCase());
  if (!found) {
    const known = devices.map((device) => device.uuid).join(', ') || 'none';
    const bad = problems.map((problem) => `; skipped: ${problem.reason}`).join('');
    throw new VmbusError(`vmbus ${uuid}: no such network device below ${root} (there: ${known}${bad})`);
  }
  const access = options.access ?? (root === '/' ? kernelRoot() : machineRoot(root));
  return new UioDevice(arena, access, found, options.memory ?? access.guestMemory(arena));
}

/** Words that one takeInterrupts() reads; more than these keep the descriptor readable. */
const READS_MAX = 64;

class UioDevice implements VmbusDevice {
  readonly uuid: string;
  readonly classId: string;
  readonly relid: number;
  readonly monitorId: number | undefined;
  readonly location: string;
  readonly arena: Arena;
  readonly memory: GuestMemory;
  readonly #root: UioRoot;
  readonly #uio: string;
  readonly #maps: readonly UioMap[];
  /** Arena addresses of what is mapped. */
  #mapped: number[] = [];
  /** The rings' file, whose lock we hold while the channel is open. */
  #ringFile = -1;
  #socket = -1;
  #gone = false;
  /** Bit of the monitor page that signals the host. */
  #trigger: { readonly word: number; readonly bit: number } | undefined;
  /** The host's running count, as last read and as last reported. */
  #count = 0;
  #reported = 0;

  constructor(arena: Arena, root: UioRoot, found: BusDevice, memory: GuestMemory) {
    this.#maps = readMaps(found);
    this.#uio = found.uio!;
    this.#root = root;
    this.uuid = found.uuid;
    this.classId = found.classId;
    this.relid = found.relid;
    this.monitorId = found.monitorId;
    this.location = found.path;
    this.arena = arena;
    this.memory = memory;
  }

  get interruptFd(): number {
    return this.#socket;
  }

  open(): OpenChannel {
    if (this.#socket >= 0) throw this.#error('cannot open, the channel is open already');
    try {
      return this.#open();
    } catch (error) {
      this.close();
      throw error instanceof VmbusError ? error : this.#error(`cannot open: ${(error as Error).message}`, error);
    }
  }

  close(): void {
    if (this.#socket >= 0) closeSync(this.#socket);
    this.#socket = -1;
    for (const address of this.#mapped.splice(0)) this.arena.release(address);
    // Last, since it lets the next guest in.
    if (this.#ringFile >= 0) closeSync(this.#ringFile);
    this.#ringFile = -1;
  }

  signal(): void {
    // When the socket is full the host has interrupts to read already; when it is closed, takeInterrupts() says so.
    if (this.#socket < 0) return;
    if (this.#trigger) Atomics.or(this.arena.u32, this.#trigger.word, this.#trigger.bit);
    else sendWord(this.#socket, this.#root.signalCommand);
  }

  takeInterrupts(): number {
    if (this.#gone) return -1;
    if (this.#socket < 0) return 0;
    for (let i = 0; i < READS_MAX; i++) {
      const word = receiveWord(this.#socket);
      if (word === -ERRNO.EAGAIN!) break;
      // Closed; EIO of a kernel after rescind; ECONNRESET; or a stream that does not consist of words.
      if (word < 0) {
        this.#gone = true;
        return -1;
      }
      this.#count = word;
    }
    const news = (this.#count - this.#reported) >>> 0;
    this.#reported = this.#count;
    return news;
  }

  #open(): OpenChannel {
    const rings = splitRings(this.#map(0), this.#maps[0]!.bytes);
    this.#map(1);
    const monitorPage = this.#map(2);
    const receiveBuffer = this.#buffer(3);
    const sendBuffer = this.#buffer(4);
    if (!lockFile(this.#ringFile)) throw this.#error('in use: another guest has the channel open');
    if (this.#root.zeroesRings) {
      zeroControlPage(this.arena, rings.first);
      zeroControlPage(this.arena, rings.second);
    }
    this.#trigger = this.#root.triggersMonitor ? triggerOf(monitorPage, this.monitorId) : undefined;
    this.#count = this.#root.eventsBefore(this.location, this.#uio);
    this.#reported = this.#count;
    this.#gone = false;
    this.#socket = this.#root.connect(this.#uio);
    return { transmit: rings.first, receive: rings.second, receiveBuffer, sendBuffer };
  }

  #buffer(index: number): GpadlRegion {
    const { gpadl, bytes } = this.#maps[index]!;
    return { gpadl, bytes, address: this.#map(index) };
  }

  #map(index: number): number {
    const { name, bytes } = this.#maps[index]!;
    const { fd, offset } = this.#root.openMap(this.#uio, index, bytes);
    try {
      const address = this.arena.mapFile(`${this.#uio} ${name}`, fd, offset, bytes);
      this.#mapped.push(address);
      return address;
    } finally {
      if (index === 0) this.#ringFile = fd;
      else closeSync(fd);
    }
  }

  #error(reason: string, cause?: unknown): VmbusError {
    return new VmbusError(`vmbus ${this.uuid} (${this.location}): ${reason}`, { cause });
  }
}

/** Where a monitor id's pending bit is: index of its word in the arena. */
function triggerOf(page: number, id: number | undefined): { word: number; bit: number } | undefined {
  if (id === undefined) return undefined;
  const { pending0, pending1 } = MonitorPage.offset;
  return { word: (page + pending0 + (id >>> 5) * (pending1 - pending0)) >>> 2, bit: (1 << (id & 31)) >>> 0 };
}
