// Our guest of the suite `peers`: the driver alone. Arguments: folder of the batons, name of the machine, its path, UUID of
// the device, packets a call.
import { constants } from 'node:os';
import { createGuestNic } from '../../src/apps/guest-nic.js';
import { createDatapath } from '../../src/datapath/datapath.js';
import { PollLoop } from '../../src/ethdev/loop.js';
import { Arena } from '../../src/memory/arena.js';
import { linuxSystem } from '../../src/memory/os/mman.js';
import { setParentDeathSignal } from '../../src/memory/os/process.js';
import { openUioDevice } from '../../src/vmbus/uio/device.js';
import { Baton } from './baton.js';
import { work } from './work.js';

const [folder, name, path, uuid, packets] = process.argv.slice(2) as [string, string, string, string, string];
const burst = Number(packets);
setParentDeathSignal(constants.signals.SIGKILL);
const arena = Arena.create({ bytes: 256 << 20, system: linuxSystem });
const datapath = createDatapath(arena.memory);
const baton = new Baton(folder, name, 'guest');
const bus = openUioDevice(arena, path, uuid);
const nic = createGuestNic(arena, datapath, bus);
const { device, smallPool } = nic;
const received = arena.reserve('packets between tasks', burst * 4);

const loop = new PollLoop();
loop.add({
  step() {
    const count = device.poll(received, burst);
    datapath.mbufFree(received, count);
    return count;
  },
  tick: (now) => device.tick(now),
  arm: () => device.arm(),
  disarm: (signalled) => device.disarm(signalled),
  fds: () => device.fds(),
});
loop.start();
const { mac } = await device.attach();
const driver = {
  receive: (handles: number, max: number) => device.poll(handles, max),
  send: (handles: number, count: number) => device.send(handles, count),
  completesInReceive: true,
};
work({ arena, datapath, driver, baton, pool: smallPool, mac, burst }, async () => {
  await device.detach();
  await loop.stop();
  loop.close();
  nic.close();
  bus.close();
  baton.close();
});
