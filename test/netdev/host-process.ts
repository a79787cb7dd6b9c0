// A machine's host as a process that a test steers: one JSON command a line on its input, one answer a line on its output.
import { createInterface } from 'node:readline';
import { createDatapath } from '../../src/datapath/datapath.js';
import { PollLoop } from '../../src/ethdev/loop.js';
import { Host } from '../../src/host/host.js';
import type { ProfileName } from '../../src/host/profiles.js';
import { Arena } from '../../src/memory/arena.js';
import { OFFLOAD } from '../../src/memory/layout.js';
import { linuxSystem } from '../../src/memory/os/mman.js';

export type HostCommand =
  | { readonly do: 'link'; readonly nic: number; readonly up: boolean }
  | { readonly do: 'rescind'; readonly nic: number }
  /** Large sends are taken back. */
  | { readonly do: 'no-lso'; readonly nic: number }
  /** So many of the next attaches fail. */
  | { readonly do: 'refuse'; readonly nic: number; readonly attaches: number }
  | { readonly do: 'state' };

const [machine = '', profile = 'ws2019'] = process.argv.slice(2);
const arena = Arena.create({ bytes: 1024 << 20, system: linuxSystem });
const host = Host.create({
  ...{ arena, datapath: createDatapath(arena.memory), machine, profile: profile as ProfileName },
  nics: [{}, {}],
});
const loop = new PollLoop();
loop.add(host);
loop.start();
const say = (answer: unknown) => process.stdout.write(`${JSON.stringify(answer)}\n`);
const end = async () => {
  await loop.stop();
  host.close();
  process.exit(0);
};
process.on('SIGTERM', end);
// A test that was killed leaves nothing: its interfaces end when their host is gone.
createInterface({ input: process.stdin })
  .on('close', end)
  .on('line', (line) => {
    const command = JSON.parse(line) as HostCommand;
    if (command.do === 'link') host.nics[command.nic]!.setLink(command.up);
    if (command.do === 'rescind') host.nics[command.nic]!.offer.rescind();
    if (command.do === 'no-lso') host.nics[command.nic]!.withdrawOffloads(OFFLOAD.LSO4 | OFFLOAD.LSO6);
    if (command.do === 'refuse') host.nics[command.nic]!.refuseAttaches(command.attaches);
    say(command.do === 'state' ? host.state() : 'done');
  });
say(host.state().nics.map(({ uuid, mac }) => ({ uuid, mac })));
