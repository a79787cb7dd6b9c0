// For tests: a data worker without host and drivers. It joins the TAPs of all namespaces like a hub, by plain reads and
// writes, so that agents, phases and tables can be tested for themselves. Can be told to spoil packets.
import { closeSync, readSync, writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { inNetwork } from '../../memory/os/netns.js';
import { openTap, setTapOffload, TAP_HEADER_BYTES, TAP_OFFLOAD, TAP_PACKET_MAX } from '../../memory/os/tap.js';
import type { NicReady, WorkerData, WorkerMessage, WorkerRequest } from './protocol.js';

/** How the hub misbehaves. */
export interface HubFaults {
  /** Every so many packets of 1000 bytes and more, one is dropped. */
  readonly dropEvery?: number;
  /** Fails instead of starting. */
  readonly failStart?: boolean;
  /** The first NIC's error counter rxBadRange counts how often it was asked. */
  readonly badRange?: boolean;
}

const given = workerData as WorkerData & { readonly faults?: HubFaults };
const faults = given.faults ?? {};
let asked = 0;
const say = (message: WorkerMessage): void => parentPort!.postMessage(message);

interface Side {
  readonly fd: number;
  sent: number;
  received: number;
}

function main(): void {
  const interfaces = given.replay ? [] : [...given.nics, ...(given.uplink.kind === 'tap' ? [given.uplink] : [])];
  const sides = interfaces.map(({ ifname, netnsPid }): Side => {
    const { fd } = inNetwork(netnsPid, () => openTap(ifname));
    setTapOffload(fd, TAP_OFFLOAD.CSUM | TAP_OFFLOAD.TSO4 | TAP_OFFLOAD.TSO6);
    return { fd, sent: 0, received: 0 };
  });
  const buffer = Buffer.alloc(TAP_PACKET_MAX);
  let running = true;
  let large = 0;
  const turn = () => {
    let work = false;
    for (const side of sides) {
      for (let i = 0; i < 32; i++) {
        const bytes = attempt(() => readSync(side.fd, buffer));
        if (bytes <= 0) break;
        work = true;
        side.sent++;
        if (bytes > 1000 && faults.dropEvery && ++large % faults.dropEvery === 0) continue;
        for (const other of sides) {
          if (other === side || !isFor(sides.indexOf(other), buffer)) continue;
          if (attempt(() => writeSync(other.fd, buffer, 0, bytes)) > 0) other.received++;
        }
      }
    }
    if (!running) {
      for (const side of sides) closeSync(side.fd);
      say({ type: 'stopped' });
      parentPort!.close();
    } else if (work) setImmediate(turn);
    else setTimeout(turn, 0);
  };
  parentPort!.on('message', (request: WorkerRequest) => {
    if (request.type === 'stop') running = false;
    else if (request.type === 'stats') say({ type: 'stats', id: request.id, ...stats(sides) });
    else {
      const sent = 100 * request.loops;
      const received = sent - (faults.dropEvery ?? 0);
      say({ type: 'replayed', id: request.id, sent, received, wrong: 0, bytes: received * 60, seconds: 0.01 });
    }
  });
  setImmediate(turn);
  say({ type: 'ready', nics: given.nics.map(describe), attachMs: 1 });
}

function attempt(call: () => number): number {
  try {
    return call();
  } catch {
    return -1; // EAGAIN, or the interface is down
  }
}

const macOf = (index: number): string => `00:15:5d:00:00:0${index + 1}`;

/** A packet to a NIC's address goes to that NIC only. */
function isFor(index: number, packet: Buffer): boolean {
  const at = TAP_HEADER_BYTES;
  const known = packet.readUIntBE(at, 5) === 0x00155d0000;
  return !known || packet[at + 5] === index + 1;
}

function describe(nic: WorkerData['nics'][number], index: number): NicReady {
  return {
    name: nic.ifname,
    mac: macOf(index),
    mtu: given.mtu,
    nvspVersion: 0x60001,
    ndisVersion: 0x6001e,
    offloads: ['LSO4', 'LSO6'],
    linkSpeedBps: 10e9,
  };
}

function stats(sides: readonly Side[]) {
  asked++;
  const nics = given.nics.map((nic, i) => {
    const { sent = 0, received = 0 } = sides[i] ?? {};
    const badRange = i === 0 && faults.badRange ? asked : 0;
    const guest = { txPackets: sent, txCopied: sent, txMessages: sent, rxPackets: received, rxBadRange: badRange };
    return { name: nic.ifname, guest, host: { txPackets: sent, rxPackets: received }, hostState: 'ready' };
  });
  return { nics, switch: { flooded: 0 }, uplink: { read: sides.at(-1)?.sent ?? 0 } };
}

if (faults.failStart) say({ type: 'failed', reason: 'the hub was told to fail' });
else main();
