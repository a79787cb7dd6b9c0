// The states of a port: any order of calls, against a model; a driver that checks that it is called as it was promised.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createDatapath } from '../datapath/datapath.js';
import { Arena } from '../memory/arena.js';
import type { Devargs } from './devargs.js';
import type { Driver, DriverContext, PortDriver, TakenPort } from './driver.js';
import { PortError, type PortErrorCode } from './errors.js';
import type { FullConfig } from './limits.js';
import { Mempool } from './mempool.js';
import { Port } from './port.js';
import type { PortEvent, PortInfo, PortState } from './types.js';

const QUEUES_MAX = 4;

class FakeDevice implements PortDriver {
  readonly mac = '02:00:00:00:00:01';
  mtu = 1500;
  onEvent: ((event: PortEvent) => void) | undefined;
  configured: FullConfig | undefined;
  running = false;
  closed = false;
  /** The next start() fails. */
  broken = false;
  locks: readonly number[] = [];

  info(): PortInfo {
    const descriptors = { min: 8, max: 64, align: 8, usual: 16 };
    return {
      ...{ driver: 'net_fake', device: 'fake0', maxRxQueues: QUEUES_MAX, maxTxQueues: QUEUES_MAX, minMtu: 68 },
      ...{ maxMtu: 9000, maxRxPacketBytes: 9014, minRxBufferBytes: 64, maxMacAddresses: 1 },
      ...{ rxDescriptors: descriptors, txDescriptors: descriptors, rxOffloads: 1, txOffloads: 2, rssTypes: 4 },
      ...{ rssTableEntries: 128, rssKeyBytes: 40, maxTxSegments: 1, speedsMbps: [], rxInterrupts: false },
      ...{ linkEvents: true, softwareFilters: [], socket: -1 },
    };
  }
  async configure(config: FullConfig): Promise<void> {
    this.expect(!this.running, 'configured while it runs');
    this.configured = config;
  }
  setupRx(queue: number): void {
    this.expect(queue < this.configured!.rxQueues && !this.running, 'rx queue set up');
  }
  setupTx(queue: number): void {
    this.expect(queue < this.configured!.txQueues && !this.running, 'tx queue set up');
  }
  async start(): Promise<void> {
    this.expect(this.configured !== undefined && !this.running, 'started');
    if (this.broken) throw new PortError('EIO', 'fake0', 'it is broken');
    this.running = true;
  }
  async stop(): Promise<void> {
    this.expect(this.running, 'stopped while it stands');
    this.running = false;
  }
  async close(): Promise<void> {
    this.expect(!this.running, 'closed while it runs');
    this.closed = true;
  }
  useLocks(rx: readonly number[], tx: readonly number[]): void {
    this.expect(!this.running, 'locks changed while it runs');
    this.locks = [...rx, ...tx];
  }
  rxQueue(): unknown {
    return {};
  }
  txQueue(): unknown {
    return {};
  }
  link() {
    return { up: true, speedMbps: 0, fullDuplex: true, autonegotiated: false };
  }
  stats() {
    return { ipackets: 0, opackets: 0, ibytes: 0, obytes: 0, imissed: 0, ierrors: 0, oerrors: 0, rxNombuf: 0 };
  }
  queueStats() {
    return undefined;
  }
  xstats(): [string, number][] {
    return [];
  }
  resetStats(): void {}
  async setMtu(mtu: number): Promise<void> {
    this.expect(!this.running, 'MTU while it runs');
    this.mtu = mtu;
  }

  private expect(right: boolean, what: string): void {
    assert.ok(right && !this.closed, what);
  }
}

/** Each burst moves one packet. */
const driver: Driver = {
  name: 'net_fake',
  pairedQueues: true,
  probe: async (_context: DriverContext, _device: string, _args: Devargs) => new FakeDevice(),
  openRx: () => ({ burst: () => 1, close: () => {} }),
  openTx: () => ({ burst: () => 1, close: () => {} }),
};

const arena = Arena.create({ bytes: 8 << 20 });
const datapath = createDatapath(arena.memory);
const pool = new Mempool(arena, 'mbufs', arena.reserve('packets', 65_536), { count: 16 }, 1);
const unused = () => {
  throw new Error('not used by these drivers');
};
const context: DriverContext = {
  ...{ arena, datapath, lcore: 0, lcores: 1, packetMemory: { address: 0, bytes: 0 }, services: undefined },
  ...{ reserve: unused, log: unused, takePort: unused, driver: () => driver },
};
const regions = arena.regions().length;

/** What the port should be like. */
interface Model {
  state: PortState;
  /** Queues, and whether each is set up. */
  rx: boolean[];
  tx: boolean[];
  mtu: number;
  taken: boolean;
}

interface World {
  readonly port: Port;
  readonly device: FakeDevice;
  handle: TakenPort | undefined;
}

/** A call: what the model says of it (a code: it fails with that and changes nothing), and how it is made. */
class Call implements fc.AsyncCommand<Model, World> {
  readonly name: string;
  readonly expected: (model: Model) => PortErrorCode | undefined;
  readonly call: (world: World) => unknown;

  constructor(name: string, expected: (model: Model) => PortErrorCode | undefined, call: (world: World) => unknown) {
    this.name = name;
    this.expected = expected;
    this.call = call;
  }

  check(): boolean {
    return true;
  }

  async run(model: Model, world: World): Promise<void> {
    const before = structuredClone(model);
    const code = this.expected(model);
    if (code === undefined) await this.call(world);
    else {
      Object.assign(model, before);
      await assert.rejects(async () => this.call(world), { name: 'PortError', code });
    }
    this.#compare(model, world);
  }

  toString(): string {
    return this.name;
  }

  #compare(model: Model, { port, device }: World): void {
    assert.equal(port.state, model.state);
    assert.equal(port.mtu, model.mtu);
    assert.equal(device.running, model.state === 'started');
    assert.equal(device.closed, model.state === 'closed');
    assert.equal(device.locks.length, model.rx.length + model.tx.length);
    const moves = model.state === 'started' ? 1 : 0;
    if (model.rx.length > 0) assert.equal(port.rxQueue(0).burst(0, 1), moves);
    else assert.throws(() => port.rxQueue(0), PortError);
    if (model.tx.length > 0) assert.equal(port.txQueue(0).burst(0, 1), moves);
  }
}

const gone = (model: Model): PortErrorCode | undefined =>
  model.taken ? 'EBUSY' : model.state === 'closed' || model.state === 'removed' ? 'ENODEV' : undefined;
const only =
  (states: readonly PortState[], then: (model: Model) => PortErrorCode | undefined) =>
  (model: Model): PortErrorCode | undefined =>
    gone(model) ?? (states.includes(model.state) ? then(model) : 'EBUSY');
const forget = (model: Model) => {
  model.rx = [];
  model.tx = [];
};

const queues = fc.integer({ min: -1, max: QUEUES_MAX + 1 });
const calls = [
  fc.tuple(queues, queues).map(
    ([rx, tx]) =>
      new Call(
        `configure ${rx} ${tx}`,
        only(['probed', 'configured'], (model) => {
          if (Math.min(rx, tx) < 0 || Math.max(rx, tx) > QUEUES_MAX || rx + tx === 0) return 'EINVAL';
          model.state = 'configured';
          model.rx = Array(rx).fill(false);
          model.tx = Array(tx).fill(false);
          return undefined;
        }),
        ({ port }) => port.configure({ rxQueues: rx, txQueues: tx }),
      ),
  ),
  fc.tuple(fc.constantFrom('rx', 'tx'), queues, fc.constantFrom(0, 8, 7, 72)).map(
    ([kind, queue, descriptors]) =>
      new Call(
        `${kind} queue ${queue}, ${descriptors} descriptors`,
        only(['configured'], (model) => {
          const list = kind === 'rx' ? model.rx : model.tx;
          if (queue < 0 || queue >= list.length || descriptors % 8 !== 0 || descriptors > 64) return 'EINVAL';
          list[queue] = true;
          return undefined;
        }),
        async ({ port }) =>
          kind === 'rx' ? port.setupRxQueue(queue, { descriptors, pool }) : port.setupTxQueue(queue, { descriptors }),
      ),
  ),
  fc.constant(
    new Call(
      'set up the rest',
      only(['configured'], (model) => {
        model.rx.fill(true);
        model.tx.fill(true);
        return undefined;
      }),
      async ({ port }) => {
        if (port.config === undefined) return port.start(); // not configured: the same error
        for (let queue = 0; queue < port.config.rxQueues; queue++) port.setupRxQueue(queue, { descriptors: 0, pool });
        for (let queue = 0; queue < port.config.txQueues; queue++) port.setupTxQueue(queue);
      },
    ),
  ),
  fc.boolean().map(
    (broken) =>
      new Call(
        broken ? 'start, broken' : 'start',
        (model) => {
          if (model.state === 'started') return undefined;
          return only(['configured'], () => {
            if ([...model.rx, ...model.tx].includes(false)) return 'EINVAL';
            if (broken) return 'EIO';
            model.state = 'started';
            return undefined;
          })(model);
        },
        async ({ port, device }) => {
          device.broken = broken;
          await port.start();
        },
      ),
  ),
  fc.constant(
    new Call(
      'stop',
      (model) => {
        if (model.state === 'started') model.state = 'configured';
        return undefined;
      },
      ({ port }) => port.stop(),
    ),
  ),
  fc.constantFrom(67, 68, 1400, 9001).map(
    (mtu) =>
      new Call(
        `MTU ${mtu}`,
        (model) =>
          model.state === 'started'
            ? 'EBUSY'
            : only(['probed', 'configured'], () => {
                if (mtu < 68 || mtu > 9000) return 'EINVAL';
                model.mtu = mtu;
                return undefined;
              })(model),
        ({ port }) => port.setMtu(mtu),
      ),
  ),
  fc.constant(
    new Call(
      'reset',
      (model) => {
        if (model.taken) return 'EBUSY';
        if (model.state === 'closed') return 'ENODEV';
        forget(model);
        if (model.state !== 'removed') model.state = 'probed';
        return undefined;
      },
      ({ port }) => port.reset(),
    ),
  ),
  fc.constant(
    new Call(
      'take',
      only(['probed', 'configured'], (model) => {
        forget(model);
        model.state = 'taken';
        model.taken = true;
        return undefined;
      }),
      async (world) => {
        world.handle = world.port.take('net_other0');
      },
    ),
  ),
  fc.constant(
    new Call(
      'release',
      (model) => {
        model.taken = false;
        if (model.state === 'taken') model.state = 'probed';
        return undefined;
      },
      async ({ handle }) => handle?.release(),
    ),
  ),
  fc.constant(
    new Call(
      'close',
      (model) => {
        if (model.state === 'closed') return undefined;
        if (model.taken) return 'EBUSY';
        forget(model);
        model.state = 'closed';
        return undefined;
      },
      ({ port }) => port.close(),
    ),
  ),
];

test('any order of calls: states, errors, bursts and what the driver was promised', async () => {
  await fc.assert(
    fc.asyncProperty(fc.commands(calls, { maxCommands: 40 }), async (list) => {
      const device = new FakeDevice();
      const port = new Port(0, 'fake0', driver, device, context);
      const model: Model = { state: 'probed', rx: [], tx: [], mtu: 1500, taken: false };
      const world: World = { port, device, handle: undefined };
      await fc.asyncModelRun(() => ({ model, real: world }), list);
      world.handle?.release();
      await port.close();
      assert.equal(arena.regions().length, regions, 'cells of queues are left');
    }),
    { numRuns: 300 },
  );
});

test('a device that is gone: the port says so and can only be closed', async () => {
  const device = new FakeDevice();
  const port = new Port(0, 'fake0', driver, device, context);
  const reasons: string[] = [];
  port.on('removed', (reason) => reasons.push(reason));
  await port.configure({ rxQueues: 1, txQueues: 1 });
  port.setupRxQueue(0, { descriptors: 0, pool });
  port.setupTxQueue(0);
  await port.start();
  device.onEvent!({ type: 'removed', reason: 'pulled out' });
  assert.deepEqual([port.state, reasons], ['removed', ['pulled out']]);
  await assert.rejects(port.start(), { code: 'ENODEV' });
  await assert.rejects(port.configure({ rxQueues: 1, txQueues: 1 }), { code: 'ENODEV' });
  device.running = false; // it is gone
  const rx = port.rxQueue(0);
  await port.close();
  assert.equal(port.state, 'closed');
  assert.equal(rx.burst(0, 1), 0);
  assert.equal(arena.regions().length, regions);
});

test('control calls run one after the other', async () => {
  const device = new FakeDevice();
  const port = new Port(0, 'fake0', driver, device, context);
  await port.configure({ rxQueues: 1, txQueues: 0 });
  port.setupRxQueue(0, { descriptors: 0, pool });
  const calls = [port.start(), port.stop(), port.start(), port.stop(), port.setMtu(1400), port.start(), port.close()];
  await Promise.all(calls);
  assert.equal(port.mtu, 1400);
  assert.equal(port.state, 'closed');
});

test('events of a device that another port took go to that port', async () => {
  const device = new FakeDevice();
  const port = new Port(0, 'fake0', driver, device, context);
  const taken = port.take('net_other0');
  const seen: string[] = [];
  taken.onEvent = ({ type }) => seen.push(type);
  device.onEvent!({ type: 'link', link: device.link() });
  device.onEvent!({ type: 'removed', reason: 'pulled out' });
  assert.deepEqual(seen, ['link', 'removed']);
  taken.release();
  assert.equal(port.state, 'removed');
  await port.close();
});

test('a device without settings of a running port: what it has not is refused, tables and levels are the usual ones', async () => {
  const device = new FakeDevice();
  const port = new Port(0, 'fake0', driver, device, context);
  await assert.rejects(port.setOffloads({ rxOffloads: 1 }), { code: 'EBUSY' });
  await port.configure({ rxQueues: 1, txQueues: 3, rxOffloads: 1 });
  await assert.rejects(port.setOffloads({ rxOffloads: 16 }), { code: 'EINVAL' });
  await assert.rejects(port.setOffloads({ rxOffloads: 0 }), { code: 'ENOTSUP' });
  assert.deepEqual(port.offloads(), { rxOffloads: 1, txOffloads: 0 });
  assert.throws(() => port.rings(), { code: 'ENOTSUP' });
  await assert.rejects(port.setRings({ rx: 10 }), { code: 'ENOTSUP' });
  assert.deepEqual(port.transmitTable().slice(0, 5), [0, 1, 2, 0, 1]);
  await port.setFlowHash('udp6', 'L3');
  assert.deepEqual(port.flowHash('udp6'), { level: 'L3', receive: false });
  assert.deepEqual(port.hashLevels, { tcp4: 'L4', udp4: 'L4', tcp6: 'L4', udp6: 'L3' });
  await port.reset();
  assert.equal(port.hashLevels.udp6, 'L4');
  await port.close();
  await assert.rejects(port.setRings({ rx: 10 }), { code: 'ENODEV' });
});

test("the device's own news: offloads that it has switched off, another transmit table", async () => {
  const device = new FakeDevice() as FakeDevice & Pick<PortDriver, 'offloads' | 'transmitTable' | 'setOffloads'>;
  let inForce = { rxOffloads: 1, txOffloads: 2 };
  let table: readonly number[] = [5, 4];
  const set: number[][] = [];
  device.offloads = () => inForce;
  device.transmitTable = () => table;
  device.setOffloads = async (rx, tx) => void set.push([rx, tx]);
  const port = new Port(0, 'fake0', driver, device, context);
  await port.configure({ rxQueues: 1, txQueues: 2, rxOffloads: 1 });
  const news: unknown[] = [];
  port.on('offloads', (offloads) => news.push(offloads));
  port.on('transmitTable', (entries) => news.push(entries));
  await port.setOffloads({ txOffloads: 2 });
  assert.deepEqual([set, port.offloads()], [[[1, 2]], { rxOffloads: 1, txOffloads: 2 }]);
  inForce = { rxOffloads: 0, txOffloads: 2 };
  device.onEvent!({ type: 'offloads' });
  table = [3, 2, 1];
  device.onEvent!({ type: 'transmit-table' });
  assert.deepEqual(news, [{ rxOffloads: 0, txOffloads: 2 }, [1, 0, 1]]);
  assert.equal(port.config!.rxOffloads, 1, 'still wanted');
  await port.close();
});
