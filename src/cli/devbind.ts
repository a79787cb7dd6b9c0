// netvsc devbind
import { type Command, Option } from 'commander';
import {
  type DevbindOptions,
  type DevbindResult,
  type DeviceLine,
  listDevices,
  listOverrides,
  loadOverride,
  setOverride,
  unsetOverride,
} from '../apps/devbind/devbind.js';
import { jsonOption } from './limits.js';

interface Given {
  readonly root: string;
  readonly verbose?: boolean;
  readonly dryRun?: boolean;
  readonly legacy?: boolean;
  readonly save?: boolean;
  readonly saveDir?: string;
  readonly json: boolean;
}

const DEVICE = 'a UUID, or the name of an interface that the device has';

export function addDevbind(program: Command): void {
  const devbind = program
    .command('devbind')
    .description("which driver has which Hyper-V network device: driverctl's commands for vmbus");
  const command = (words: string, description: string) =>
    devbind
      .command(words)
      .description(description)
      .addOption(
        new Option('--root <dir>', "this system's files (/), a machine, or a recorded tree, by path or name").default(
          '/',
        ),
      )
      .option('-v, --verbose', 'say more')
      .addOption(jsonOption());
  const changing = (words: string, description: string) =>
    command(words, description)
      .option('--dry-run', 'print what would be written to which file, and change nothing')
      .option('--legacy', 'with new_id, unbind and bind, as on kernels before 4.18, which have no driver_override')
      .option('--save-dir <dir>', 'where overrides are kept over a restart (default: /etc/driverctl.d below the root)');
  const saving = (words: string, description: string) =>
    changing(words, description).option('--no-save', 'only until the next restart');

  command('list-devices', 'devices and their drivers; [*] marks those with an override').action((given: Given) =>
    print(given, listDevices(options(given)), true),
  );
  command('list-overrides', 'devices with an override').action((given: Given) =>
    print(given, listOverrides(options(given)), false),
  );
  saving('set-override', 'make DRIVER the driver of a device')
    .argument('<device>', DEVICE)
    .argument('<driver>', 'uio_hv_generic (for netvsc and DPDK), hv_netvsc (the kernel), ...')
    .action(async (device: string, driver: string, given: Given) =>
      report(given, await setOverride(options(given), device, driver)),
    );
  saving('unset-override', 'give a device back to its default driver')
    .argument('<device>', DEVICE)
    .action(async (device: string, given: Given) => report(given, await unsetOverride(options(given), device)));
  changing('load-override', 'do what was saved for a device, after a restart')
    .argument('<device>', DEVICE)
    .action(async (device: string, given: Given) => report(given, await loadOverride(options(given), device)));
}

function options({ root, dryRun, legacy, save, saveDir, verbose }: Given): DevbindOptions {
  const log = (text: string) => {
    if (dryRun) process.stdout.write(`${text}\n`);
    else if (verbose) process.stderr.write(`${text}\n`);
  };
  return {
    ...{ root, dryRun: dryRun === true, legacy: legacy === true, noSave: save === false, log },
    ...(saveDir === undefined ? {} : { saveDir }),
  };
}

function print({ json, verbose }: Given, devices: readonly DeviceLine[], mark: boolean): void {
  const lines = devices.map((device) => `${line(device, mark, verbose === true)}\n`);
  // In one piece, for readers that stop after the first line.
  process.stdout.write(json ? `${JSON.stringify(devices)}\n` : lines.join(''));
}

/** As driverctl prints it. */
function line({ uuid, driver, override, relid, uio, interfaces }: DeviceLine, mark: boolean, verbose: boolean): string {
  const words = [uuid, driver ?? '(none)'];
  if (mark && override !== undefined) words.push('[*]');
  if (verbose) {
    const facts = ['Hyper-V network device', `channel ${relid}`, ...(uio ? [uio] : []), ...interfaces];
    if (override !== undefined && override !== driver) facts.push(`override ${override}`);
    words.push(`(${facts.join(', ')})`);
  }
  return words.join(' ');
}

function report({ json, verbose, dryRun }: Given, result: DevbindResult): void {
  if (json && !dryRun) process.stdout.write(`${JSON.stringify(result)}\n`);
  else if (dryRun && !result.changed) process.stdout.write(`${result.uuid}: nothing to bind or unbind\n`);
  else if (verbose) process.stderr.write(`${result.uuid}: bound to ${result.driver ?? 'no driver'}\n`);
}
