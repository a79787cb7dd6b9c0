// What devbind does to a system, each thing in two ways: for real, or told only (--dry-run).
import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdirSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { VmbusError } from '../../vmbus/device.js';
import { quote } from '../../vmbus/uio/attributes.js';
import { type BusDevice, readDriver } from '../../vmbus/uio/scan.js';
import type { DeviceTree } from './tree.js';

export interface Actions {
  readonly dry: boolean;
  /** Writes a line to a file of the tree. Throws VmbusError with what it means. */
  write(file: string, text: string): void;
  /** Has the kernel load a driver. Throws VmbusError. */
  load(driver: string): void;
  /**
   * Waits until the device's driver passes the test. Throws VmbusError when it does not in time: a kernel has acted by
   * the time that a write returns, the host of a machine directory acts later.
   */
  settle(device: BusDevice, test: (driver: string | undefined) => boolean, wanted: string): Promise<void>;
  /** Writes or removes a file of the configuration. */
  save(file: string, text: string): void;
  remove(file: string): void;
}

/** What an error of a write to a file of the bus means. */
const MEANING: Readonly<Record<string, string>> = {
  ENODEV: 'the driver does not take this device',
  EBUSY: 'the device has a driver already',
  EEXIST: 'it is there already',
  EINVAL: 'the kernel does not take this text',
  EACCES: 'not allowed; are you root?',
  EPERM: 'not allowed; are you root?',
  ENOENT: 'there is no such file',
  ENXIO: 'nobody reads it: the host of this machine is gone',
  EAGAIN: 'the host of this machine does not read it',
};

const LOOK_MS = 5;

/** `log` hears of each step before it is done. */
export function realActions(tree: DeviceTree, patienceMs: number, log: (text: string) => void): Actions {
  return {
    dry: false,
    write(file, text) {
      log(`${quote(text)} to ${file}`);
      writeLine(file, text);
    },
    load(driver) {
      if (tree.kind !== 'kernel') throw new VmbusError(`no driver ${driver} below ${tree.bus}/drivers`);
      log(`modprobe ${driver}`);
      const { error, status, stderr } = spawnSync('modprobe', [driver], { encoding: 'utf8' });
      const reason = error ? error.message : status === 0 ? '' : stderr.trim() || `exit code ${status}`;
      if (reason !== '') throw new VmbusError(`driver ${driver} is not there and cannot be loaded: ${reason}`);
      if (!tree.hasDriver(driver))
        throw new VmbusError(`module ${driver} is loaded, but is no driver of vmbus devices`);
    },
    async settle(device, test, wanted) {
      const began = performance.now();
      for (;;) {
        const driver = readDriver(device.path);
        if (test(driver)) return;
        if (performance.now() - began >= patienceMs) {
          throw new VmbusError(`expected it to be bound to ${wanted}, it is bound to ${driver ?? 'no driver'}`);
        }
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      }
    },
    save(file, text) {
      log(`${quote(text)} to ${file}`);
      saving(file, () => {
        mkdirSync(path.dirname(file), { recursive: true });
        writeFileSync(file, `${text}\n`);
      });
    },
    remove(file) {
      log(`remove ${file}`);
      saving(file, () => rmSync(file, { force: true }));
    },
  };
}

/** Changes nothing, and takes everything to succeed. */
export function dryActions(log: (text: string) => void): Actions {
  return {
    dry: true,
    write: (file, text) => log(`would write ${quote(text)} to ${file}`),
    load: (driver) => log(`would run modprobe ${driver}`),
    settle: async (device, _, wanted) => log(`would check that ${device.path}/driver is ${wanted}`),
    save: (file, text) => log(`would save ${quote(text)} in ${file}`),
    remove: (file) => log(`would remove ${file}`),
  };
}

function writeLine(file: string, text: string): void {
  let fd = -1;
  try {
    // Never creates a file; never waits for a host that is gone (ENXIO) or stuck (EAGAIN).
    fd = openSync(file, constants.O_WRONLY | constants.O_TRUNC | constants.O_NONBLOCK);
    writeSync(fd, `${text}\n`);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
    const meaning = MEANING[code];
    throw new VmbusError(`writing ${quote(text)} to ${file}: ${code}${meaning ? ` (${meaning})` : ''}`, { cause });
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}

function saving(file: string, action: () => void): void {
  try {
    action();
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw new VmbusError(
      `the binding is changed, but cannot be kept over a restart: ${file}: ${reason} (--no-save does not try)`,
      { cause },
    );
  }
}
