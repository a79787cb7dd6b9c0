// What a user may choose for the demo, and within which limits.
import { PROFILE_NAMES, type ProfileName } from '../../host/profiles.js';

export interface DemoOptions {
  readonly nics: number;
  readonly profile: ProfileName;
  readonly mtu: number;
  /** How long each transfer runs; without it the sizes of plan.ts count. */
  readonly seconds?: number;
  readonly json: boolean;
}

export const NICS = { min: 2, max: 8, default: 2 } as const;
/** IPv4 needs 68 bytes (RFC 791). Above 65,521 a frame would not fit a TAP packet. */
export const MTU = { min: 68, max: 65_521, default: 1500 } as const;
export const SECONDS = { min: 0.1, max: 3600 } as const;
export const DEFAULT_PROFILE: ProfileName = 'ws2019';

/** A value outside of its limits: the message says what was expected. */
export class OptionError extends Error {
  override readonly name = 'OptionError';
}

const refuse = (expected: string): never => {
  throw new OptionError(`expected ${expected}`);
};

/** A whole number within limits. Throws OptionError. */
export function parseWhole(limits: { readonly min: number; readonly max: number }, text: string): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= limits.min && value <= limits.max) return value;
  return refuse(`a whole number from ${limits.min} to ${limits.max}`);
}

/** Seconds, with decimals. Throws OptionError. */
export function parseSeconds(text: string): number {
  const value = /^\d{1,9}(\.\d{1,9})?$/.test(text) ? Number(text) : Number.NaN;
  if (value >= SECONDS.min && value <= SECONDS.max) return value;
  return refuse(`seconds from ${SECONDS.min} to ${SECONDS.max}`);
}

/** Throws OptionError. */
export function parseProfile(text: string): ProfileName {
  const found = PROFILE_NAMES.find((name) => name === text);
  return found ?? refuse(`one of ${PROFILE_NAMES.join(', ')}`);
}
