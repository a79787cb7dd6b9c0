// The host's half of a two-thread benchmark.
import { workerData } from 'node:worker_threads';
import { createDatapath } from '../src/datapath/datapath.js';
import { Arena } from '../src/memory/arena.js';
import { linuxSystem } from '../src/memory/os/mman.js';
import { COMMAND, CONTROL } from './datapath.js';
import type { Rig } from './rig.js';
import { BURST, createTraffic } from './traffic.js';

const { memory, rig, control, scratch, bytes } = workerData;
const arena = Arena.attach(memory, linuxSystem);
const datapath = createDatapath(memory, scratch);
const traffic = createTraffic({ ...rig, arena, datapath } as Rig, bytes);
const words = new Int32Array(memory.buffer);
Atomics.store(words, control + CONTROL.READY, 1);
for (;;) {
  const command = Atomics.load(words, control + CONTROL.MODE);
  if (command === COMMAND.STOP) break;
  if (command === COMMAND.PING) {
    for (let i = 0; i < 1000; i++)
      Atomics.store(words, control + CONTROL.PONG, Atomics.load(words, control + CONTROL.PING));
  }
  for (let turn = 0; turn < 64; turn++) {
    const frames = traffic.hostPoll();
    if (command === COMMAND.RX) traffic.hostSend(BURST);
    else if (command === COMMAND.ECHO && frames > 0) traffic.hostSend(frames);
    traffic.hostComplete();
  }
}
