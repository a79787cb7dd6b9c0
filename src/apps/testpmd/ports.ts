// Starting, stopping, closing and resetting ports, with the words of DPDK's testpmd.
import { setTimeout as sleep } from 'node:timers/promises';
import { RX_OFFLOAD } from '../../ethdev/constants.js';
import type { PortConfig } from '../../ethdev/types.js';
import { attempt, failureOf } from './output.js';
import type { Session, TestPort } from './session.js';
import { upperMac } from './values.js';

/** How long testpmd waits for links, and how often it looks. */
const LINK_TRIES = 90;
const LINK_MS = 100;

type Which = number | 'all';

/** What a port's device would be configured with. */
export function portConfig(session: Session, { port, rxOffloads, txOffloads }: TestPort): PortConfig {
  const { rxQueues, txQueues, rssTypes, mtu, options } = session;
  const info = port.info();
  return {
    ...{ rxQueues, txQueues, txOffloads },
    // With scaling a hash comes with every packet, as DPDK's devices have it.
    rxOffloads: rxQueues > 1 ? rxOffloads | (info.rxOffloads & RX_OFFLOAD.RSS_HASH) : rxOffloads,
    rss: { types: rxQueues > 1 ? rssTypes & info.rssTypes : 0 },
    rxInterrupts: options.rxInterrupts && info.rxInterrupts,
    ...(mtu === undefined ? {} : { mtu }),
  };
}

async function configure(session: Session, test: TestPort): Promise<void> {
  const { port } = test;
  session.out.print(`Configuring Port ${port.id} (socket ${Math.max(0, port.info().socket)})`);
  await port.configure(portConfig(session, test));
  const { rxQueues, txQueues, rxDescriptors, txDescriptors, pool } = session;
  for (let queue = 0; queue < rxQueues; queue++) port.setupRxQueue(queue, { descriptors: rxDescriptors, pool });
  for (let queue = 0; queue < txQueues; queue++) port.setupTxQueue(queue, { descriptors: txDescriptors });
  test.stale = false;
}

async function startOne(session: Session, test: TestPort): Promise<boolean> {
  const { port } = test;
  let step = `configure`;
  try {
    if (test.stale) await configure(session, test);
    step = 'start';
    await port.start();
  } catch (error) {
    const { message } = failureOf(error);
    session.out.complain(`${message}\nFail to ${step} port ${port.id}`);
    return false;
  }
  session.out.print(`Port ${port.id}: ${upperMac(port.mac)}`);
  return true;
}

/** "port start". False when a port did not start. */
export async function startPorts(session: Session, which: Which): Promise<boolean> {
  const { out } = session;
  const ports = session.select(which);
  if (ports.length === 0 && which !== 'all') return false;
  let started = 0;
  let failed = false;
  for (const test of ports) {
    if (test.port.state === 'started') out.complain(`Port ${test.port.id} is now not stopped`);
    else if (await startOne(session, test)) started++;
    else failed = true;
    if (failed) break;
  }
  if (failed) return false;
  if (started > 0) await checkLinks(session);
  else if (ports.length > 0) out.complain('Please stop the ports first');
  out.print('Done');
  return true;
}

/** "Checking link statuses...": waits until links are up, or gives up. */
export async function checkLinks(session: Session): Promise<void> {
  if (!session.linkCheck) return;
  session.out.print('Checking link statuses...');
  const down = () => session.open.filter(({ port }) => port.state === 'started' && !port.link().up);
  for (let i = 0; i < LINK_TRIES && down().length > 0; i++) await sleep(LINK_MS);
  for (const { port } of down()) session.out.print(`Port ${port.id} Link down`);
}

/** Forwarded right now: not to be stopped. Says so. */
function forwarding(session: Session, { port }: TestPort): boolean {
  if (!session.forwarder.running || !session.forwarder.plan.ports.includes(port.id)) return false;
  session.out.complain(`Please remove port ${port.id} from forwarding configuration.`);
  return true;
}

/** "port stop". `check`: look at links afterwards. */
export async function stopPorts(session: Session, which: Which, check = true): Promise<void> {
  const { out } = session;
  const ports = session.select(which);
  if (ports.length === 0 && which !== 'all') return;
  out.print('Stopping ports...');
  let stopped = 0;
  for (const test of ports) {
    if (forwarding(session, test) || test.port.state !== 'started') continue;
    const failure = await attempt(() => test.port.stop());
    if (failure) out.complain(`${failure.message}\nFailed to stop port ${test.port.id}`);
    else stopped++;
  }
  if (stopped > 0 && check) await checkLinks(session);
  out.print('Done');
}

/** "port close". */
export async function closePorts(session: Session, which: Which): Promise<void> {
  const { out } = session;
  const ports = session.select(which);
  if (ports.length === 0 && which !== 'all') return;
  out.print('Closing ports...');
  for (const test of ports) {
    const { id, state } = test.port;
    if (forwarding(session, test)) continue;
    if (state === 'started') out.complain(`Cannot close started device (port ${id})`);
    else {
      await test.port.close();
      out.print(`Port ${id} is closed`);
    }
  }
  out.print('Done');
}

/** "port reset": back to what probe left; it is configured anew when it starts. */
export async function resetPorts(session: Session, which: Which): Promise<void> {
  const { out } = session;
  const ports = session.select(which);
  if (ports.length === 0 && which !== 'all') return;
  if (ports.some(({ port }) => port.state === 'started')) {
    out.complain('Can not reset port(s), please stop port(s) first.');
    return;
  }
  out.print('Resetting ports...');
  for (const test of ports) {
    const failure = await attempt(() => test.port.reset());
    if (failure) out.complain(`Failed to reset port ${test.port.id}. diag=-${failure.number}`);
    test.stale = true;
  }
  out.print('Done');
}

/** The end of everything, as testpmd tells of it. */
export async function endPorts(session: Session): Promise<void> {
  const { out } = session;
  const { open } = session;
  for (const { port } of open) {
    out.print(`\nStopping port ${port.id}...`);
    await stopPorts(session, port.id, false);
  }
  for (const { port } of open) {
    out.print(`\nShutting down port ${port.id}...`);
    await closePorts(session, port.id);
  }
  out.print('\nBye...');
}
