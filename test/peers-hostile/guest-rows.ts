// What a row of the guest-to-host tables is.

import { words } from '../../src/host/raw-guest-testing.js';
import type { FRAME_ERROR } from '../../src/memory/layout.js';
import { type Attacker, type TwoNics, V61 } from './two-nics.js';

export type Outcome =
  /** The channel dies; its state names why. */
  | { readonly dead: RegExp }
  /** An orderly end. */
  | { readonly stopped: RegExp }
  /** The message is completed with status 2, for this reason, and nothing of it is forwarded. */
  | { readonly refused: keyof typeof FRAME_ERROR }
  /** The message is taken: completed with status 1. */
  | { readonly taken: true }
  /** The row checks the answers itself; the channel lives. */
  | { readonly alive: true };

export interface GuestRow {
  readonly name: string;
  /** Where the guest is when it happens; default attached. */
  readonly from?: 'opened' | 'init' | 'configured';
  readonly version?: number;
  /** Does the one wrong thing. The id that it returns is the transaction whose completion is looked at. */
  readonly act: (guest: Attacker, rig: TwoNics) => unknown;
  readonly outcome: Outcome;
}

/** Brings the attacker to where the row begins. */
export function prepare(guest: Attacker, row: GuestRow): void {
  const version = row.version ?? V61;
  guest.close(); // left open when the row before failed
  if (row.from === undefined) {
    guest.attach(version);
    return;
  }
  guest.open();
  if (row.from === 'opened') return;
  guest.init(version);
  if (row.from === 'configured') guest.config(1514);
}

/** An NVSP message padded to its longest form. */
export const padded = (...cells: number[]): Uint8Array => words(...cells, ...new Array<number>(9).fill(0));
