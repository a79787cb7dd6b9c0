// One end of a soak, a process in a namespace of its own: it answers what comes, and talks to the other end by TCP with hashes
// and by UDP with sequence numbers, until "stop" comes on its input. Then "report" gets one line of JSON.
import { createHash } from 'node:crypto';
import { createSocket, type Socket } from 'node:dgram';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { seededRandom } from '../src/vmbus/memory/simulator.js';

const TCP_PORT = 5301;
const UDP_PORT = 5302;
const PERIOD_MS = 10;
const BURST = 4;
const MEGABYTES_MAX = 24;
/** UDP flows, bytes of a datagram at least and at most: the second one's are all cut into fragments, whose hash is another. */
const SIZES = [
  [4, 1400],
  [2000, 6000],
] as const;

export interface StationReport {
  readonly tcp: { readonly connections: number; readonly bytes: number; readonly wrong: readonly string[] };
  /** Datagrams that the kernel took. */
  readonly udpSent: number;
  readonly udpReceived: number;
  readonly udpDamaged: number;
  readonly udpTwice: number;
  readonly udpReordered: number;
}

/** What is received of a flow. */
interface Flow {
  highest: number;
  readonly seen: Set<number>;
}

const [own4 = '', own6 = '', peer4 = '', peer6 = '', seed = '1'] = process.argv.slice(2);
const random = seededRandom(Number(seed));
/** 0 to limit - 1. */
const below = (limit: number) => Math.floor(random() * limit);
const totals = { udpSent: 0, udpReceived: 0, udpDamaged: 0, udpTwice: 0, udpReordered: 0 };
const tcp = { connections: 0, bytes: 0, wrong: [] as string[] };
const flows = new Map<string, Flow>();
let stopped = false;

/** Bytes of datagram `n` behind its number. */
const patternAt = (n: number, at: number) => (n * 31 + at) & 255;

function hear(message: Buffer, from: string): void {
  const n = message.length >= 4 ? message.readUInt32LE(0) : 0;
  for (let at = 4; at < message.length; at++) {
    if (message[at] === patternAt(n, at)) continue;
    totals.udpDamaged++;
    return;
  }
  let flow = flows.get(from);
  if (!flow) {
    flow = { highest: -1, seen: new Set() };
    flows.set(from, flow);
  }
  if (flow.seen.has(n)) totals.udpTwice++;
  else totals.udpReceived++;
  flow.seen.add(n);
  if (n < flow.highest) totals.udpReordered++;
  else flow.highest = n;
  // What came long ago does not come again.
  if (flow.seen.size > 20_000) for (const old of flow.seen) if (old < n - 10_000) flow.seen.delete(old);
}

async function datagrams(): Promise<void> {
  const sockets = await Promise.all(
    [own4, own6].flatMap((address) =>
      SIZES.map(async ([least, most]) => {
        const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
        await new Promise<void>((resolve) => socket.bind(0, address, resolve));
        return { socket, least, most, to: address.includes(':') ? peer6 : peer4, next: 0 };
      }),
    ),
  );
  while (!stopped) {
    for (const one of sockets) {
      for (let i = 0; i < (one.most < 1500 ? BURST : 1); i++) {
        const message = Buffer.allocUnsafe(one.least + below(one.most - one.least + 1));
        message.writeUInt32LE(one.next, 0);
        for (let at = 4; at < message.length; at++) message[at] = patternAt(one.next, at);
        if (await sent(one.socket, message, one.to)) one.next++;
      }
    }
    await sleep(PERIOD_MS);
  }
  for (const { socket } of sockets) socket.close();
}

/** The kernel took it. */
const sent = (socket: Socket, message: Buffer, to: string) =>
  new Promise<boolean>((resolve) =>
    socket.send(message, UDP_PORT, to, (error) => {
      if (!error) totals.udpSent++;
      resolve(!error);
    }),
  );

function connection(to: string, chunks: number): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(TCP_PORT, to);
    const hash = createHash('sha256');
    const block = Buffer.alloc(1 << 16);
    const salt = below(2 ** 31);
    let count = 0;
    let answer = '';
    const push = () => {
      while (count < chunks) {
        for (let at = 0; at < block.length; at += 64)
          block.writeUInt32LE((salt ^ (count * block.length + at)) >>> 0, at);
        count++;
        hash.update(block);
        if (!socket.write(Buffer.from(block))) return;
      }
      socket.end();
    };
    socket.on('connect', push).on('drain', push);
    socket.on('error', (error) => tcp.wrong.push(`to ${to}: ${error.message}`));
    socket.on('data', (data) => {
      answer += data.toString();
    });
    socket.on('close', (failed) => {
      tcp.connections++;
      tcp.bytes += count * block.length;
      const expected = `${count * block.length} ${hash.digest('hex')}`;
      if (!failed && answer !== expected) tcp.wrong.push(`to ${to}: sent ${expected}, the other side got ${answer}`);
      resolve();
    });
  });
}

async function streams(): Promise<void> {
  for (let i = 0; !stopped; i++) {
    await connection(i % 2 === 0 ? peer4 : peer6, 1 + below(MEGABYTES_MAX * 16));
    // Room for the others on a machine with few cores.
    await sleep(100);
  }
}

const listener = createSocket({ type: 'udp6', ipv6Only: false, recvBufferSize: 4 << 20 });
listener.on('message', (message, { address, port }) => hear(message, `${address} ${port}`));
const server = createServer({ allowHalfOpen: true }, (socket) => {
  const hash = createHash('sha256');
  let bytes = 0;
  socket.on('data', (data) => {
    hash.update(data);
    bytes += data.length;
  });
  socket.on('end', () => socket.end(`${bytes} ${hash.digest('hex')}`));
  socket.on('error', (error) => tcp.wrong.push(`received: ${error.message}`));
});
await new Promise<void>((resolve) => server.listen(TCP_PORT, '::', resolve));
await new Promise<void>((resolve) => listener.bind(UDP_PORT, '::', resolve));
process.stdout.write('listens\n');

let work: Promise<unknown> = Promise.resolve();
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'start') work = Promise.all([datagrams(), streams()]);
  if (line === 'stop') {
    stopped = true;
    await work;
    process.stdout.write('stopped\n');
  }
  if (line === 'report') process.stdout.write(`${JSON.stringify({ tcp, ...totals } satisfies StationReport)}\n`);
}
process.exit(0);
