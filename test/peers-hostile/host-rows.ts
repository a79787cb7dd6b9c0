// What a row of the host-to-guest tables is, and the packets that most of them are made of.
import { packet, words } from '../../src/netvsc/fake-host.js';
import { type BadHost, message, sectionAt, type TwoDevices } from './two-devices.js';

export const TX_TRANSACTION = 0x4e54_0001;
export const CONTROL_TRANSACTION = 0x4e54_0002;

export interface HostRow {
  readonly name: string;
  /** Does the one wrong thing; turns may be taken. */
  readonly act: (rig: TwoDevices) => unknown;
  /** The device fails with this name; default: it goes on. */
  readonly fails?: RegExp;
  /** Error counters that move, and by how much; all others stay. */
  readonly counts?: Readonly<Record<string, number>>;
  /** Status of the completion of transfer-page transaction 99: 1 or 2; default none. */
  readonly completion?: 1 | 2;
  /** Frames that are received all the same. */
  readonly frames?: number;
}

export interface AttachRow {
  readonly name: string;
  readonly act: (host: BadHost) => void;
  /** What attach says; undefined = the host gets away with it. */
  readonly error?: RegExp;
}

/** A transfer-page packet with transaction 99. */
export function transfer(
  ranges: readonly (readonly [bytes: number, offset: number])[],
  how: { readonly set?: number; readonly count?: number; readonly payload?: Uint8Array } = {},
): Uint8Array {
  const header = words(how.set ?? 0xcafe, how.count ?? ranges.length, ...ranges.flat());
  return packet(7, 1, 99, 0, header, how.payload ?? words(107, 0, 0xffff_ffff, 0, 0, 0, 0));
}

/** Sends an RNDIS message in a section of its own. */
export const deliver =
  (bytes: Uint8Array, length = bytes.length) =>
  ({ host }: TwoDevices): void => {
    host.place(sectionAt(0), bytes);
    host.write(transfer([[length, sectionAt(0)]]));
  };

/** Several messages, a range each, in one packet. */
export const deliverAll =
  (...messages: readonly Uint8Array[]) =>
  ({ host }: TwoDevices): void => {
    let at = sectionAt(0);
    const ranges = messages.map((bytes) => {
      host.place(at, bytes);
      const range = [bytes.length, at] as const;
      at += bytes.length;
      return range;
    });
    host.write(transfer(ranges));
  };

export const good = (): Uint8Array => message();
