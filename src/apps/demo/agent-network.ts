// What an agent does to and with its namespace's network: set up an interface, find neighbours, ping, read counters.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { isIPv6 } from 'node:net';
import { EchoSocket } from '../../memory/os/icmp.js';
import type { Interface, KernelCounters, PingResult } from './protocol.js';

const IP_TIMEOUT_MS = 5000;
const RESOLVE_TIMEOUT_MS = 3000;

/** Runs iproute2's `ip`; resolves to its output. */
export function ip(...words: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile('ip', words, { timeout: IP_TIMEOUT_MS }, (error, stdout, stderr) => {
      if (!error) resolve(stdout);
      else reject(new Error(`ip ${words.join(' ')}: ${stderr.trim() || error.message}`));
    });
  });
}

export async function configure(settings: Interface): Promise<{ mac: string }> {
  const { ifname, mac, mtu, gsoMaxBytes, ipv4, ipv6 } = settings;
  if (gsoMaxBytes) await ip('link', 'set', 'dev', ifname, 'gso_max_size', String(gsoMaxBytes));
  await ip('link', 'set', 'dev', ifname, ...(mac ? ['address', mac] : []), 'mtu', String(mtu));
  await ip('address', 'add', ipv4, 'dev', ifname);
  await ip('link', 'set', 'dev', ifname, 'up');
  // Below 1280 bytes the kernel has no IPv6 on an interface. nodad: usable at once.
  if (ipv6) await ip('-6', 'address', 'add', ipv6, 'dev', ifname, 'nodad');
  const found = /link\/ether ([0-9a-f:]{17})/.exec(await ip('link', 'show', 'dev', ifname));
  return { mac: found?.[1] ?? '' };
}

/** MAC address that the kernel finds for `target`, and how long the first round trip took with finding it. */
export async function resolve(ifname: string, target: string): Promise<{ mac: string; ms: number }> {
  const family = isIPv6(target) ? '-6' : '-4';
  await ip(family, 'neigh', 'flush', 'to', target, 'dev', ifname);
  const socket = new EchoSocket(target);
  try {
    const result = socket.echo(56, RESOLVE_TIMEOUT_MS);
    if (result.outcome !== 'reply') throw new Error(`${target} does not answer: ${result.reason}`);
    const shown = await ip(family, 'neigh', 'show', 'to', target, 'dev', ifname);
    const mac = /lladdr ([0-9a-f:]{17})/.exec(shown)?.[1];
    if (!mac)
      throw new Error(`${target} answers, but the kernel has no neighbour for it: ${shown.trim() || 'nothing'}`);
    return { mac, ms: result.rttMs };
  } finally {
    socket.close();
  }
}

export async function ping(target: string, count: number, bytes: number, timeoutMs: number): Promise<PingResult> {
  const times: number[] = [];
  let wrong = 0;
  let reason: string | undefined;
  const socket = new EchoSocket(target);
  try {
    for (let i = 0; i < count; i++) {
      const result = socket.echo(bytes, timeoutMs);
      if (result.outcome === 'reply') times.push(result.rttMs);
      else {
        reason ??= result.reason;
        if (result.outcome === 'wrong') wrong++;
      }
      await new Promise((next) => setImmediate(next)); // echo() blocks: messages of the parent get their turn here
    }
  } finally {
    socket.close();
  }
  const none = times.length === 0;
  return {
    sent: count,
    received: times.length,
    wrong,
    minMs: none ? 0 : Math.min(...times),
    avgMs: none ? 0 : times.reduce((sum, time) => sum + time, 0) / times.length,
    maxMs: none ? 0 : Math.max(...times),
    ...(reason === undefined ? {} : { reason }),
  };
}

/** Counters of this process's namespace, named as nstat(8) names them: TcpRetransSegs, Udp6RcvbufErrors. */
export function kernelCounters(): KernelCounters {
  const counters: Record<string, number> = {};
  const lines = readFileSync('/proc/self/net/snmp', 'latin1').trim().split('\n');
  for (let i = 0; i + 1 < lines.length; i += 2) {
    const [name, ...fields] = lines[i]!.split(' ');
    const values = lines[i + 1]!.split(' ').slice(1);
    for (const [at, field] of fields.entries()) counters[`${name!.replace(':', '')}${field}`] = Number(values[at]);
  }
  let lines6 = '';
  try {
    lines6 = readFileSync('/proc/self/net/snmp6', 'latin1');
  } catch {
    // a kernel without IPv6
  }
  for (const line of lines6.trim().split('\n')) {
    const [name, value] = line.split(/\s+/);
    if (name) counters[name] = Number(value);
  }
  return counters;
}
