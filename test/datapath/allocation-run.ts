// Heap bytes per packet of the netvsc data path, in a process of its own (allocation.test.ts). Prints one JSON line: bytes that N and 10 N rounds took, for each path.
import { GRO_POLL, GRO_WORK, GroTraffic } from '../../bench/gro.js';
import { createRig } from '../../bench/rig.js';
import { createGuestNic } from '../../src/apps/guest-nic.js';
import { createDatapath } from '../../src/datapath/datapath.js';
import { netvscDriver } from '../../src/drivers/netvsc/netvsc.js';
import { NetvscPort } from '../../src/drivers/netvsc/port.js';
import { testContext } from '../../src/drivers/netvsc/testing.js';
import { Devargs } from '../../src/ethdev/devargs.js';
import { Mempool } from '../../src/ethdev/mempool.js';
import { Port } from '../../src/ethdev/port.js';
import { Host } from '../../src/host/host.js';
import { DEFAULT_VLAN, type SwitchPort } from '../../src/host/ports.js';
import { VirtualSwitch } from '../../src/host/vswitch.js';
import { Arena } from '../../src/memory/arena.js';
import { PACKET_FLAG as F, HOST_CHANNEL, MBUF } from '../../src/memory/layout.js';
import { createMemoryBus } from '../../src/vmbus/memory/bus.js';
import { type AllocationResult, measure } from './allocation-measure.js';

const BURST = 32;

const arena = Arena.create({ bytes: 96 << 20 });
const { u32, u8 } = arena;
const datapath = createDatapath(arena.memory);

/** A burst of plain, tagged, checksummed and large packets; every `large`-th is one. */
function fillBurst(handles: number, pool: number, largePool: number, source: Uint8Array, target: Uint8Array): number {
  const large = datapath.poolGet(largePool, handles, 1);
  const n = large + datapath.poolGet(pool, handles + large * 4, BURST - large);
  for (let i = 0; i < n; i++) {
    const mbuf = u32[(handles >>> 2) + i]!;
    const data = u32[(mbuf + MBUF.at.data) >>> 2]!;
    const tso = i < large;
    const bytes = tso ? 9000 : i % 4 === 0 ? 1514 : 64;
    for (let k = 0; k < 6; k++) {
      u8[data + k] = target[k]!;
      u8[data + 6 + k] = source[k]!;
    }
    u8[data + 12] = 8;
    u8[data + 13] = 0;
    u8[data + 14] = 0x45;
    u8[data + 16] = (bytes - 14) >>> 8;
    u8[data + 17] = (bytes - 14) & 0xff;
    u8[data + 23] = 6;
    u8[data + 35] = i; // a flow each
    u8[data + 46] = 0x50;
    u32[(mbuf + MBUF.at.dataLength) >>> 2] = bytes;
    u32[(mbuf + MBUF.at.packetLength) >>> 2] = bytes;
    u32[(mbuf + MBUF.at.mss) >>> 2] = 1448;
    u32[(mbuf + MBUF.at.l4Offset) >>> 2] = 34;
    u32[(mbuf + MBUF.at.flags) >>> 2] = F.IPV4 | (tso ? F.TX_TSO : i % 3 === 0 ? F.TX_TCP_CHECKSUM : 0);
  }
  return n;
}

const A = Uint8Array.of(2, 0, 0, 0, 0, 1);
const B = Uint8Array.of(2, 0, 0, 0, 0, 2);

/** The compiled loops alone, and the switch between them. */
function loops(sabotage: boolean): AllocationResult {
  const rig = createRig(arena, datapath, { receiveBytes: 2 << 20, poolCount: 512, largeCount: 16 });
  const vswitch = new VirtualSwitch({ arena, datapath });
  let delivered = 0;
  const waste: object[] = [];
  const port = (number: number, mac: Uint8Array, deliver: SwitchPort['deliver']): SwitchPort => {
    const fixed = { kind: 'nic', vlan: DEFAULT_VLAN, mtu: 1500, linkUp: true, filter: 0xffffffff } as const;
    return { ...fixed, number, name: `port ${number}`, macs: [mac], deliver };
  };
  vswitch.addPort(port(1, A, () => {}));
  vswitch.addPort(
    port(2, B, (frames, count) => {
      datapath.hostSend(rig.channel, frames, count);
    }),
  );
  const table = u32[(rig.channel + HOST_CHANNEL.at.frames) >>> 2]!;
  const result = measure(
    'rings and switch',
    () => delivered,
    () => {
      const n = fillBurst(rig.handles, rig.smallPool, rig.largePool, A, B);
      const taken = datapath.guestSend(rig.queue, rig.handles, n);
      datapath.mbufFree(rig.handles + taken * 4, n - taken);
      vswitch.forward(table, datapath.hostPoll(rig.channel, BURST));
      datapath.hostComplete(rig.channel);
      const got = datapath.guestPoll(rig.queue, rig.handles, BURST);
      datapath.mbufFree(rig.handles, got);
      delivered += got;
      if (sabotage) for (let i = 0; i < got; i++) waste[0] = { i };
    },
  );
  vswitch.close();
  rig.close();
  return result;
}

/** Packets of one connection, most of which go into others. */
function receiveOffload(): AllocationResult {
  const traffic = new GroTraffic(GRO_WORK[0]!, arena, datapath);
  let polls = 0;
  return measure(
    'receive offload',
    () => polls * GRO_POLL,
    () => {
      polls++;
      traffic.prepare();
      traffic.poll();
      traffic.free();
    },
  );
}

/** Two guests on one host with its switch, as the workers step them; each with so many queues. */
async function machine(path: string, queues: number): Promise<AllocationResult> {
  const bus = createMemoryBus(arena, { devices: 2, ringBytes: 512 << 10, receiveBytes: 2 << 20, sendBytes: 1 << 20 });
  const host = Host.create({
    arena,
    datapath,
    machine: 'allocation',
    profile: 'ws2019',
    nics: [{ mac: A }, { mac: B }],
    offers: bus.pairs.map(({ offer }) => offer),
  });
  const guests = bus.pairs.map(({ device }) =>
    createGuestNic(arena, datapath, device, { smallCount: 512, largeCount: 32, queues }),
  );
  const [a, b] = guests as [(typeof guests)[0], (typeof guests)[0]];
  const handles = arena.reserve('handles', BURST * 4);
  let nowMs = 0;
  let settled = false;
  const attached = Promise.all(guests.map(({ device }) => device.attach()));
  attached.then(
    () => {
      settled = true;
    },
    () => {
      settled = true;
    },
  );
  while (!settled) {
    host.step();
    host.tick(++nowMs);
    for (const { device } of guests) {
      datapath.mbufFree(handles, device.poll(handles, BURST));
      device.tick(nowMs);
    }
    await new Promise(setImmediate);
  }
  await attached;
  let delivered = 0;
  let rounds = 0;
  const receive = ({ device }: (typeof guests)[0]) => {
    for (let queue = 0; queue < queues; queue++) {
      const got = device.poll(handles, BURST, queue);
      datapath.mbufFree(handles, got);
      delivered += got;
    }
  };
  const send = (from: (typeof guests)[0], source: Uint8Array, target: Uint8Array) => {
    const n = fillBurst(handles, from.smallPool, from.largePool, source, target);
    const taken = from.device.send(handles, n, rounds++ % queues);
    datapath.mbufFree(handles + taken * 4, n - taken);
  };
  const result = measure(
    path,
    () => delivered,
    () => {
      send(a, A, B);
      send(b, B, A);
      host.step();
      receive(b);
      receive(a);
    },
  );
  const ends = Promise.all(guests.map(({ device }) => device.detach()));
  let done = false;
  void ends.then(() => {
    done = true;
  });
  while (!done) {
    host.step();
    host.tick(++nowMs);
    for (const { device } of guests) {
      for (let queue = 0; queue < queues; queue++) device.poll(handles, BURST, queue);
      device.tick(nowMs);
    }
    await new Promise(setImmediate);
  }
  for (const guest of guests) guest.close();
  host.close();
  bus.close();
  return result;
}

/** Two ports of the device API on one host, with everything that their bursts can do to packets. */
async function ports(path: string, queues: number, devargs: string): Promise<AllocationResult> {
  const bus = createMemoryBus(arena, { devices: 2, ringBytes: 512 << 10, receiveBytes: 2 << 20, sendBytes: 1 << 20 });
  const offers = bus.pairs.map(({ offer }) => offer);
  const nics = [{ mac: A }, { mac: B }];
  const host = Host.create({ arena, datapath, machine: 'ports', profile: 'ws2019', nics, offers });
  const small = { count: 2048, room: 2048 + 128 };
  const large = { count: 32, room: 16_384 };
  const bytes = Mempool.bytes(small) + Mempool.bytes(large) + 64;
  const packets = { address: bus.memory.allocate('packets', bytes), bytes };
  const pool = new Mempool(arena, 'small', packets.address, small, 1);
  const largePool = new Mempool(
    arena,
    'large',
    Math.ceil((packets.address + Mempool.bytes(small)) / 64) * 64,
    large,
    1,
  );
  const context = testContext(
    arena,
    datapath,
    packets,
    (name, size) => arena.reserve(name, size),
    () => {},
  );
  const handles = arena.reserve('handles', BURST * 4);
  let nowMs = 0;
  const run = async <T>(work: Promise<T>): Promise<T> => {
    let settled = false;
    const mark = () => {
      settled = true;
    };
    work.then(mark, mark);
    while (!settled) {
      host.step();
      host.tick(++nowMs);
      await new Promise(setImmediate);
    }
    return work;
  };
  const made: Port[] = [];
  for (const [id, { device }] of bus.pairs.entries()) {
    const impl = await run(NetvscPort.open(context, device.uuid, device, new Devargs(devargs, device.uuid)));
    const port = new Port(id, device.uuid, netvscDriver, impl, context);
    const { rxOffloads, txOffloads } = port.info();
    await run(port.configure({ rxQueues: queues, txQueues: queues, rxOffloads, txOffloads }));
    for (let queue = 0; queue < queues; queue++) {
      port.setupRxQueue(queue, { descriptors: 0, pool });
      port.setupTxQueue(queue);
    }
    await run(port.start());
    made.push(port);
  }
  let delivered = 0;
  let rounds = 0;
  const receivers = made.map((port) => Array.from({ length: queues }, (_, queue) => port.rxQueue(queue)));
  const senders = made.map((port) => Array.from({ length: queues }, (_, queue) => port.txQueue(queue)));
  const receive = (which: number) => {
    const list = receivers[which]!;
    for (let queue = 0; queue < queues; queue++) {
      const got = list[queue]!.burst(handles, BURST);
      datapath.mbufFree(handles, got);
      delivered += got;
    }
  };
  const send = (which: number, source: Uint8Array, target: Uint8Array) => {
    const n = fillBurst(handles, pool.address, largePool.address, source, target);
    const taken = senders[which]![rounds++ % queues]!.burst(handles, n);
    datapath.mbufFree(handles + taken * 4, n - taken);
  };
  const result = measure(
    path,
    () => delivered,
    () => {
      send(0, A, B);
      send(1, B, A);
      host.step();
      receive(1);
      receive(0);
    },
  );
  for (const port of made) await run(port.close());
  for (const one of [pool, largePool]) one.release();
  host.close();
  bus.close();
  return result;
}

const results = [
  loops(process.argv[2] === 'sabotage'),
  receiveOffload(),
  await machine('host, switch and two guests', 1),
  await machine('the same with 4 queues each', 4),
  await ports('ports of the device API', 1, ''),
  await ports('the same with 4 queues each', 4, 'rx_extmbuf_enable=1,rx_copybreak=100,tx_copybreak=100'),
];
process.stdout.write(`${JSON.stringify(results)}\n`);
