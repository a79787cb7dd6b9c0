// The other side in a process of its own, for tests that kill it: `node testing-peer.js host NAME`, `guest ROOT UUID`,
// or `visitor ROOT TIMES`, which opens and closes the channel again and again. Prints one line of JSON once it is ready, then stays until it is killed or its standard input ends.
import { closeSync } from 'node:fs';
import { Arena } from '../../memory/arena.js';
import { linuxSystem } from '../../memory/os/mman.js';
import { connectUnix } from '../../memory/os/socket.js';
import { openUioDevice } from './device.js';
import { createMachine } from './machine.js';

const TEST_UUID = '0022487b-5c2f-0022-487b-5c2f0022487b';
const SIZES = { ringBytes: 65_536, receiveBytes: 1 << 20, sendBytes: 1 << 20 };

function host(arena: Arena, name: string): void {
  const machine = createMachine(arena, { name, nics: [{ uuid: TEST_UUID, relid: 15, ...SIZES }] });
  const offer = machine.offers[0]!;
  setInterval(() => {
    if (offer.poll().interrupts > 0) offer.signal();
  }, 2);
  process.stdin.on('end', () => {
    machine.close();
    process.exit();
  });
  ready({ path: machine.path, uuid: TEST_UUID });
}

function guest(arena: Arena, root: string, uuid: string): void {
  const device = openUioDevice(arena, root, uuid);
  const { transmit } = device.open();
  const address = device.memory.allocate('packets', 16_384);
  arena.u8.fill(0x42, address, address + 16_384);
  arena.u8[transmit.control + 4096] = 0x43;
  device.signal();
  process.stdin.on('end', () => {
    // Named here so that the arena, and with it the memory that the host is to see, is not garbage until then.
    device.close();
    process.exit();
  });
  ready({ pfn: device.memory.pfn(address).toString() });
}

/** Every other connection begins at the moment at which the one before it ended. */
function visitor(root: string, times: number): void {
  ready({});
  let left = times;
  /** A host that did not look for a while has no room for one more. */
  const connect = (): number => {
    for (;;) {
      try {
        return connectUnix(`${root}/dev/uio0`);
      } catch (error) {
        if ((error as { code?: string }).code !== 'EAGAIN') throw error;
      }
    }
  };
  const visit = () => {
    for (let pair = 0; pair < 2; pair++) closeSync(connect());
    if (--left > 0) setTimeout(visit, 1);
    else process.exit();
  };
  setTimeout(visit, 100);
}

function ready(facts: Record<string, string>): void {
  process.stdin.resume();
  process.stdout.write(`${JSON.stringify(facts)}\n`);
}

const [role, ...args] = process.argv.slice(2) as [string, string, string];
const arena = Arena.create({ bytes: 16 << 20, system: linuxSystem });
if (role === 'host') host(arena, args[0]);
else if (role === 'visitor') visitor(args[0], Number(args[1]));
else guest(arena, args[0], args[1]);
