import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDatapath } from '../../src/datapath/datapath.js';
import { Arena } from '../../src/memory/arena.js';
import { seededRandom } from '../../src/vmbus/memory/simulator.js';
import { Machine } from './machine.js';

test('a guest dies and the next one opens before the host looks: no frame goes into the rings of the new opening', async () => {
  const arena = Arena.create({ bytes: 64 << 20 });
  const guest = { smallCount: 64, largeCount: 2 };
  const machine = new Machine(
    {
      profile: 'ws2019',
      guests: [guest, guest],
      ringBytes: 64 << 10,
      receiveBytes: 256 << 10,
      sendBytes: 96 << 10,
    },
    { arena, datapath: createDatapath(arena.memory), random: seededRandom(1), log: () => {} },
  );
  let nowMs = 0;
  const settle = async () => {
    for (let turns = 0; machine.guests.some((one) => one.order !== undefined); turns++) {
      assert.ok(turns < 1000, machine.unfinished());
      machine.host.step();
      for (const one of machine.guests) one.step(nowMs++ / 10);
      await new Promise(setImmediate);
    }
  };
  const attach = (index: number) => {
    const { device } = machine.guests[index]!.nic;
    machine.guests[index]!.command('attach', () => device.attach(), assert.ifError);
  };
  attach(0);
  attach(1);
  await settle();
  const [sender] = machine.guests;
  const id = machine.ledger.nextId();
  const packet = {
    id,
    kind: 'raw',
    v6: false,
    bytes: 100,
    tci: undefined,
    tagInData: false,
    unfinished: false,
    mss: 0,
  } as const;
  sender!.queue.push({ packet: { ...packet, from: machine.mac(0), to: machine.mac(1) }, to: 'guest1' });
  while (sender!.queue.length > 0) sender!.step(nowMs++ / 10);
  machine.killGuest(1);
  attach(1);
  await settle();
  const state = machine.host.nics[1]!.state();
  assert.deepEqual([state.phase, state.deaths, state.reason, state.opens], ['ready', 0, undefined, 2]);
});
