// A process in the left interface's namespace that sends as many equal frames as the kernel takes; or, one at a time into
// an idle path, measures how long each needs to come out of the right interface. Ends with its parent.
import { constants } from 'node:os';
import { inNetwork } from '../src/memory/os/netns.js';
import { setParentDeathSignal } from '../src/memory/os/process.js';
import { PacketSocket } from './packet-socket.js';

export interface GeneratorEnd {
  readonly pid: number;
  readonly ifname: string;
  readonly mac: string;
}
export interface Blast {
  readonly kind: 'blast';
  readonly left: GeneratorEnd;
  readonly right: GeneratorEnd;
  readonly bytes: number;
  readonly ms: number;
}
export interface Probe {
  readonly kind: 'probe';
  readonly left: GeneratorEnd;
  readonly right: GeneratorEnd;
  readonly bytes: number;
  readonly count: number;
  readonly gapMs: number;
}
/** Frames that the interface took. */
export interface Blasted {
  readonly sent: number;
}
/** Microseconds from before the send call until the frame was read on the other side; frames that did not come. */
export interface Probed {
  readonly us: number[];
  readonly lost: number;
}

/** After which a frame counts as lost. */
const LOST_MS = 100;

function blast({ left, right, bytes, ms }: Blast): Blasted {
  const socket = inNetwork(left.pid, () => new PacketSocket(left.ifname));
  socket.setFrame(left.mac, right.mac, bytes);
  let sent = 0;
  for (const until = performance.now() + ms; performance.now() < until; ) {
    for (let i = 0; i < 8; i++) sent += socket.send();
  }
  socket.close();
  return { sent };
}

async function probe({ left, right, bytes, count, gapMs }: Probe): Promise<Probed> {
  const from = inNetwork(left.pid, () => new PacketSocket(left.ifname));
  const to = inNetwork(right.pid, () => new PacketSocket(right.ifname, { receive: true }));
  from.setFrame(left.mac, right.mac, bytes);
  const us: number[] = [];
  let lost = 0;
  for (let i = 0; i < count; i++) {
    await new Promise((resolve) => setTimeout(resolve, gapMs));
    while (to.receive()); // late ones
    const start = performance.now();
    from.send(1);
    let now = start;
    while (!to.receive() && now - start < LOST_MS) now = performance.now();
    now = performance.now();
    if (now - start < LOST_MS) us.push((now - start) * 1000);
    else lost++;
  }
  from.close();
  to.close();
  return { us, lost };
}

setParentDeathSignal(constants.signals.SIGKILL);
process.on('SIGINT', () => {}); // the parent ends it
process.on('disconnect', () => process.exit(0));
process.on('message', async (task: Blast | Probe) => {
  try {
    process.send!({ result: task.kind === 'blast' ? blast(task) : await probe(task) });
  } catch (error) {
    process.send!({ error: (error as Error).message });
  }
});
