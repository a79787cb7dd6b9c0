// Uplinks by name, as the command line gives them.

import type { Datapath } from '../../datapath/datapath.js';
import type { Arena } from '../../memory/arena.js';
import { parseIpv4, parseIpv6, parseMac } from '../../wire/address-text.js';
import type { FrameSink, Uplink } from '../ports.js';
import { EchoUplink } from './echo.js';
import { PcapUplink } from './pcap.js';
import { TapUplink } from './tap.js';

/** An uplink as it was asked for. */
export type UplinkSpec =
  | { readonly kind: 'tap'; readonly interfaceName: string }
  | {
      readonly kind: 'pcap';
      /** Capture whose frames are sent into the switch. */
      readonly read?: string;
      /** Capture that is written. */
      readonly write?: string;
      /** Send when the timestamps say so, not at once. */
      readonly paced: boolean;
    }
  | { readonly kind: 'echo'; readonly addresses: readonly Uint8Array[]; readonly mac?: Uint8Array };

/** What was typed is no uplink; the message says what is. */
export class UplinkError extends Error {
  override name = 'UplinkError';
}

/** One line per form, for help texts. */
export const UPLINK_FORMS = [
  'tap:NAME               a TAP interface of the kernel, made when it is not there',
  'pcap:FILE              writes every frame on the switch to FILE (pcapng)',
  'pcap-read:FILE[,paced] sends the frames of a capture into the switch, at once or at their own pace',
  'echo[:ADDRESS,...]     answers ARP, ICMP, ICMPv6 and UDP port 7, for these addresses (or for all) and as this MAC',
] as const;

/** Reads one of UPLINK_FORMS (`pcap-write:` is another name of `pcap:`). Throws UplinkError. */
export function parseUplink(text: string): UplinkSpec {
  const colon = text.indexOf(':');
  const kind = colon < 0 ? text : text.slice(0, colon);
  const rest = colon < 0 ? '' : text.slice(colon + 1);
  const refuse = (why: string): never => {
    throw new UplinkError(`uplink ${JSON.stringify(text)}: ${why}`);
  };
  if (kind === 'tap') {
    if (!/^[^/\s:]{1,15}$/.test(rest) || rest === '.' || rest === '..') {
      refuse('expected tap:NAME with an interface name of 1 to 15 characters without / : or space');
    }
    return { kind, interfaceName: rest };
  }
  if (kind === 'pcap' || kind === 'pcap-write') {
    if (rest === '') refuse(`expected ${kind}:FILE`);
    return { kind: 'pcap', write: rest, paced: false };
  }
  if (kind === 'pcap-read') {
    const paced = rest.endsWith(',paced');
    const read = paced ? rest.slice(0, -',paced'.length) : rest;
    if (read === '') refuse('expected pcap-read:FILE or pcap-read:FILE,paced');
    return { kind: 'pcap', read, paced };
  }
  if (kind === 'echo') {
    const addresses: Uint8Array[] = [];
    let mac: Uint8Array | undefined;
    for (const part of rest === '' ? [] : rest.split(',')) {
      const address = parseIpv4(part) ?? parseIpv6(part);
      if (address) addresses.push(address);
      else mac = parseMac(part) ?? refuse(`expected IPv4, IPv6 or MAC addresses, got ${JSON.stringify(part)}`);
    }
    if (mac !== undefined && (mac[0]! & 1) !== 0) refuse('expected a MAC address of one station, got a group address');
    return mac ? { kind, addresses, mac } : { kind, addresses };
  }
  return refuse(`expected one of\n  ${UPLINK_FORMS.join('\n  ')}`);
}

/** What every uplink needs. */
export interface UplinkContext {
  readonly arena: Arena;
  readonly datapath: Datapath;
  /** The switch. */
  readonly sink: FrameSink;
  /** Port number, as VirtualSwitch.freeNumber gives it. */
  readonly number: number;
  /** Wall clock for a capture's timestamps: nanoseconds since 1970 at the loop's time 0. */
  readonly epochNs?: bigint;
}

/** Opens it: interfaces and files are made. The caller plugs it into the switch (addPort). Throws OsError for interfaces,
 *  PcapError for captures. */
export function openUplink(spec: UplinkSpec, context: UplinkContext): Uplink {
  if (spec.kind === 'tap') return new TapUplink({ ...context, interfaceName: spec.interfaceName });
  if (spec.kind === 'echo') {
    return new EchoUplink({ ...context, addresses: spec.addresses, ...(spec.mac ? { mac: spec.mac } : {}) });
  }
  return new PcapUplink({ ...context, ...spec });
}
