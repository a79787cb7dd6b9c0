// The guest's side of a device: five maps and an interrupt descriptor, from a machine directory or a kernel.
import { closeSync } from 'node:fs';
import type { Arena } from '../../memory/arena.js';
import { DOORBELL } from '../../memory/layout.js';
import { lockFile } from '../../memory/os/process.js';
import { endConnection, sendWord } from '../../memory/os/socket.js';
import {
  type GpadlRegion,
  type GuestMemory,
  type OpenChannel,
  PAGE_BYTES,
  type Subchannel,
  type VmbusDevice,
  VmbusError,
} from '../device.js';
import { setLatency, takeInterruptBit } from '../doorbell.js';
import { splitRings, zeroControlPage } from '../rings.js';
import { GONE, NO_WORD, ringDoorbell, setDoorbell, takeWords } from './bell.js';
import { IRQ_COMMAND } from './interrupts.js';
import { kernelRoot } from './kernel-root.js';
import { readMaps, type UioMap } from './maps.js';
import { machineRoot, type UioRoot } from './root.js';
import { type BusDevice, scanBus } from './scan.js';
import { findSubchannel } from './subchannels.js';

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

/** What mapping the rings of a channel says that is not open yet. */
const NOT_YET: readonly string[] = ['ENODEV', 'EAGAIN'];

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
  /** Arena addresses of what this opening holds. */
  #mapped: number[] = [];
  #interruptPage = 0;
  #monitorPage = 0;
  /** Channel ids of this opening, the primary's first, and the monitor ids among them. */
  readonly #relids: number[] = [];
  readonly #monitorIds: number[] = [];
  /** The primary's DOORBELL. */
  #bell = 0;
  /** The rings' file, whose lock we hold while the channel is open. */
  #ringFile = -1;
  #socket = -1;
  #gone = false;
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
    this.monitorId = root.monitors ? found.monitorId : undefined;
    this.location = found.path;
    this.arena = arena;
    this.memory = memory;
  }

  get interruptFd(): number {
    return this.#socket;
  }

  get sizesReceiveBuffer(): boolean {
    return this.#root.sizesReceiveBuffer;
  }

  open(receiveBytes?: number): OpenChannel {
    if (this.#socket >= 0) throw this.#error('cannot open, the channel is open already');
    try {
      return this.#open(receiveBytes);
    } catch (error) {
      this.close();
      throw error instanceof VmbusError ? error : this.#error(`cannot open: ${(error as Error).message}`, error);
    }
  }

  close(): void {
    if (this.#socket >= 0) {
      // Other threads may sleep on it, and the next opening must not find this one still there.
      endConnection(this.#socket);
      closeSync(this.#socket);
    }
    this.#socket = -1;
    this.#relids.length = 0;
    this.#monitorIds.length = 0;
    for (const address of this.#mapped.splice(0)) this.arena.release(address);
    // Last, since it lets the next guest in.
    if (this.#ringFile >= 0) closeSync(this.#ringFile);
    this.#ringFile = -1;
  }

  openSubchannel(): Subchannel | undefined {
    if (this.#socket < 0) return undefined;
    const found = findSubchannel(this.location, this.#relids, (channel) => this.#root.openRings(channel));
    if (!found) return undefined;
    const { relid, subchannelId, fd, bytes } = found;
    const monitorId = this.#root.monitors ? found.monitorId : undefined;
    try {
      const address = this.arena.mapFile(`${this.#uio} channel ${relid} rings`, fd, 0, bytes);
      this.#mapped.push(address);
      const { first, second } = splitRings(address, bytes);
      const doorbell = this.#doorbell(relid, monitorId);
      const signal = () => this.#signal(doorbell);
      return { relid, subchannelId, monitorId, transmit: first, receive: second, doorbell, signal };
    } catch (error) {
      // A kernel may show a channel's rings before it has opened the channel (facts/linux-guest.md 9.3). Our caller looks
      // again, for as long as it waits for its channels.
      if (NOT_YET.includes((error as { code?: string }).code ?? '')) return undefined;
      throw this.#error(`cannot map channel ${relid}: ${(error as Error).message}`, error);
    } finally {
      closeSync(fd);
    }
  }

  setLatency(units: number): number {
    for (const id of this.#monitorIds) setLatency(this.arena, this.#monitorPage, id, units);
    return this.#monitorIds.length;
  }

  signal(): void {
    this.#signal(this.#bell);
  }

  takeInterrupts(): number {
    if (this.#gone) return -1;
    if (this.#socket < 0) return 0;
    const word = takeWords(this.#socket);
    if (word === GONE) {
      this.#gone = true;
      return -1;
    }
    if (word !== NO_WORD) this.#count = word;
    const news = (this.#count - this.#reported) >>> 0;
    this.#reported = this.#count;
    // Whom it was for is found on the rings.
    if (news > 0) for (const relid of this.#relids) takeInterruptBit(this.arena, this.#interruptPage, 'guest', relid);
    return news;
  }

  #open(receiveBytes: number | undefined): OpenChannel {
    const rings = splitRings(this.#map(0), this.#maps[0]!.bytes);
    this.#interruptPage = this.#map(1);
    this.#monitorPage = this.#map(2);
    const receiveBuffer = this.#buffer(3);
    const sendBuffer = this.#buffer(4);
    if (!lockFile(this.#ringFile)) throw this.#error('in use: another guest has the channel open');
    if (this.#root.zeroesRings) {
      zeroControlPage(this.arena, rings.first);
      zeroControlPage(this.arena, rings.second);
    }
    this.#count = this.#root.eventsBefore(this.location, this.#uio);
    this.#reported = this.#count;
    this.#gone = false;
    this.#socket = this.#root.connect(this.#uio);
    if (receiveBytes !== undefined && receiveBytes < receiveBuffer.bytes && this.sizesReceiveBuffer)
      sendWord(this.#socket, (IRQ_COMMAND.RECEIVE_PAGES | Math.ceil(receiveBytes / PAGE_BYTES)) >>> 0);
    this.#bell = this.#doorbell(this.relid, this.monitorId);
    return { transmit: rings.first, receive: rings.second, receiveBuffer, sendBuffer, doorbell: this.#bell };
  }

  #signal(doorbell: number): void {
    if (this.#socket >= 0) ringDoorbell(this.arena, doorbell);
  }

  /** Makes a channel of this opening known: its ids, and a DOORBELL. */
  #doorbell(relid: number, monitorId: number | undefined): number {
    const address = this.arena.reserve(`${this.#uio} channel ${relid} doorbell`, DOORBELL.bytes);
    this.#mapped.push(address);
    this.#relids.push(relid);
    if (monitorId !== undefined) this.#monitorIds.push(monitorId);
    setDoorbell(this.arena, address, {
      ...{ fd: this.#socket, command: this.#root.signalCommand, relid, monitorId },
      ...{ interruptPage: this.#interruptPage, monitorPage: this.#monitorPage },
    });
    return address;
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
