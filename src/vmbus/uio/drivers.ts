// The driver core of a machine directory: what a kernel does when somebody writes to /sys/bus/vmbus (facts/linux-guest.md
// 9.1). The files that are written to are named pipes, so that no command is lost or half read; a device's
// driver_override is a plain file, read whenever drivers are matched. Unlike a kernel it acts at its next tick, after the
// write: whoever wrote looks at the device's `driver` link. A refusal is no error of the write but counted here.
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { Fifo } from '../../memory/os/fifo.js';
import { PollSet } from '../../memory/os/poll.js';
import { NETVSC_CLASS } from '../device.js';
import { quote, readOptionalAttribute } from './attributes.js';

/** In the order in which devices without an override are offered to them. */
export const DRIVER_NAMES = ['hv_netvsc', 'uio_hv_generic'] as const;
export type DriverName = (typeof DRIVER_NAMES)[number];

/** A device of the bus, as its host has it. */
export interface DriverDevice {
  readonly uuid: string;
  /** Its directory; `driver` and `driver_override` are there. */
  readonly path: string;
  /** The driver takes the device; when this throws, the device stays without one. */
  probe(driver: DriverName): unknown;
  /** The driver leaves it. */
  remove(driver: DriverName): void;
}

/** Commands of driver directories, in the order in which those of one tick are done. */
const COMMANDS = ['new_id', 'remove_id', 'unbind', 'bind'] as const;
type Command = (typeof COMMANDS)[number] | 'drivers_probe';

interface CommandFile {
  readonly path: string;
  readonly command: Command;
  readonly driver: DriverName | undefined;
  readonly fifo: Fifo;
}

const UUID = /\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?/gi;
/** As in a kernel: for root to write, for nobody to read. */
const COMMAND_MODE = 0o200;

/** Driver that a device is reserved for. Missing file (kernels before 4.18), "(null)" and an empty line: none. */
export function readOverride(devicePath: string): string | undefined {
  const text = readOptionalAttribute(`${devicePath}/driver_override`)?.trim() ?? '';
  return text === '' || text === '(null)' ? undefined : text;
}

export class DriverCore {
  readonly stats = { commands: 0, refused: 0, lastRefusal: '' };
  readonly #bus: string;
  readonly #devices = new Map<string, DriverDevice>();
  readonly #bound = new Map<DriverDevice, DriverName>();
  /** Classes that were added with new_id. */
  readonly #ids: Record<DriverName, Set<string>> = { hv_netvsc: new Set(), uio_hv_generic: new Set() };
  readonly #files: CommandFile[] = [];
  readonly #polls = new PollSet();

  /** Makes the command files below `<root>/sys/bus/vmbus`. Throws OsError. */
  constructor(root: string) {
    this.#bus = `${root}/sys/bus/vmbus`;
    try {
      for (const command of COMMANDS) {
        for (const driver of DRIVER_NAMES) {
          mkdirSync(`${this.#bus}/drivers/${driver}`, { recursive: true, mode: 0o700 });
          this.#serve(`drivers/${driver}/${command}`, command, driver);
        }
      }
      this.#serve('drivers_probe', 'drivers_probe', undefined);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** A new device: as after new_id of uio_hv_generic, and bound to it. Undefined, or why that failed. */
  add(device: DriverDevice): string | undefined {
    this.#devices.set(device.uuid, device);
    this.#ids.uio_hv_generic.add(NETVSC_CLASS);
    return this.#attach(device, 'uio_hv_generic');
  }

  /** The device leaves the bus. */
  forget(device: DriverDevice): void {
    this.#detach(device);
    this.#devices.delete(device.uuid);
  }

  driverOf(uuid: string): DriverName | undefined {
    const device = this.#devices.get(uuid);
    return device && this.#bound.get(device);
  }

  /** Does what was written since the last call. */
  tick(): void {
    if (this.#polls.wait(0) === 0) return;
    for (const file of this.#files) {
      if (this.#polls.revents(file.fifo.fd) !== 0) this.#read(file);
    }
  }

  close(): void {
    for (const { fifo } of this.#files.splice(0)) fifo.close();
    this.#polls.close();
  }

  #serve(name: string, command: Command, driver: DriverName | undefined): void {
    const path = `${this.#bus}/${name}`;
    const fifo = new Fifo(path, COMMAND_MODE);
    this.#files.push({ path, command, driver, fifo });
    this.#polls.add(fifo.fd);
  }

  #read({ path, command, driver, fifo }: CommandFile): void {
    const text = fifo.read();
    for (const [, uuid] of text.matchAll(UUID)) {
      this.stats.commands++;
      try {
        const refusal = this.#command(command, driver, uuid!.toLowerCase());
        if (refusal) this.#refuse(path, refusal);
      } catch (error) {
        // The tree is its user's: files in the way, or an override that cannot be read.
        this.#refuse(path, (error as Error).message);
      }
    }
    const rest = text.replace(UUID, '').trim();
    if (rest !== '') this.#refuse(path, `EINVAL: expected a UUID, got ${quote(rest)}`);
  }

  #refuse(path: string, reason: string): void {
    this.stats.refused++;
    this.stats.lastRefusal = `${path}: ${reason}`;
  }

  /** Undefined, or why not, beginning with the error that a kernel returns. */
  #command(command: Command, driver: DriverName | undefined, uuid: string): string | undefined {
    if (command === 'new_id') return this.#newId(driver!, uuid);
    if (command === 'remove_id') {
      return this.#ids[driver!].delete(uuid) ? undefined : `ENODEV: class ${uuid} was not added`;
    }
    const device = this.#devices.get(uuid);
    if (!device) return `ENODEV: no device ${uuid}`;
    const bound = this.#bound.get(device);
    if (command === 'unbind') {
      if (bound !== driver) return `ENODEV: ${uuid} is bound to ${bound ?? 'no driver'}`;
      this.#detach(device);
      return undefined;
    }
    this.#tidyOverride(device);
    if (command === 'drivers_probe') return bound ? undefined : this.#probe(device);
    if (bound) return `EBUSY: ${uuid} is bound to ${bound}`;
    if (!this.#matches(device, driver!)) return `ENODEV: ${uuid} has no id or override for ${driver}`;
    return this.#attach(device, driver!);
  }

  #newId(driver: DriverName, classId: string): string | undefined {
    const ids = this.#ids[driver];
    if (ids.has(classId)) return `EEXIST: class ${classId} was added before`;
    ids.add(classId);
    for (const device of this.#devices.values()) {
      if (!this.#bound.has(device) && this.#matches(device, driver)) this.#attach(device, driver);
    }
    return undefined;
  }

  #probe(device: DriverDevice): string | undefined {
    const driver = DRIVER_NAMES.find((name) => this.#matches(device, name));
    return driver && this.#attach(device, driver);
  }

  #matches(device: DriverDevice, driver: DriverName): boolean {
    const override = readOverride(device.path);
    if (override !== undefined) return override === driver;
    return driver === 'hv_netvsc' || this.#ids[driver].has(NETVSC_CLASS);
  }

  #attach(device: DriverDevice, driver: DriverName): string | undefined {
    this.#bound.set(device, driver);
    try {
      device.probe(driver);
      symlinkSync(`../../devices/${device.uuid}`, `${this.#bus}/drivers/${driver}/${device.uuid}`);
      // Last: who waits for the driver waits for this.
      symlinkSync(`../../drivers/${driver}`, `${device.path}/driver`);
    } catch (error) {
      this.#detach(device);
      return `${driver} failed with ${device.uuid}: ${(error as Error).message}`;
    }
    return undefined;
  }

  #detach(device: DriverDevice): void {
    const driver = this.#bound.get(device);
    if (!driver) return;
    this.#bound.delete(device);
    device.remove(driver);
    for (const link of [`${this.#bus}/drivers/${driver}/${device.uuid}`, `${device.path}/driver`]) {
      rmSync(link, { recursive: true, force: true });
    }
  }

  /** A cleared override reads as a kernel prints it. */
  #tidyOverride({ path }: DriverDevice): void {
    const text = readOptionalAttribute(`${path}/driver_override`);
    if (text !== undefined && text.trim() === '') writeFileSync(`${path}/driver_override`, '(null)\n');
  }
}
