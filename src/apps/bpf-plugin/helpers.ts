// The helper functions that conformance suites expect at numbers 0 to 5.
import { FAULT, type Helper, HelperFault, type Region, regionAt, Unwind } from '../../xdp/isa/machine.js';

/** The five lowest bytes, first argument in front. */
const gatherBytes: Helper = (...args) => args.reduce((sum, argument) => (sum << 8n) | (argument & 0xffn), 0n);

/** Ends the program with 0 where its argument is 0. */
const unwind: Helper = (r1) => {
  if (r1 === 0n) throw new Unwind(0n);
  return r1;
};

/** Helpers 0 gather_bytes, 1 memfrob, 2 no_op, 3 sqrti, 4 strcmp, 5 unwind. Those with pointers check them against the regions. */
export function conformanceHelpers(bytes: Uint8Array, regions: readonly Region[]): Map<number, Helper> {
  /** The region around an address; HelperFault where there is none. */
  const around = (address: bigint, length: number, write: boolean): Region => {
    const region = regionAt(regions, address, length, write);
    if (region === undefined) throw new HelperFault(FAULT.ARGUMENT);
    return region;
  };
  const memfrob: Helper = (address, length) => {
    if (length === 0n) return 0n;
    if (length > BigInt(bytes.length)) throw new HelperFault(FAULT.ARGUMENT);
    around(address, Number(length), true);
    for (let at = Number(address); at < Number(address + length); at++) bytes[at]! ^= 42;
    return 0n;
  };
  const strcmp: Helper = (left, right) => {
    for (let at = 0n; ; at++) {
      around(left + at, 1, false);
      around(right + at, 1, false);
      const a = bytes[Number(left + at)]!;
      const b = bytes[Number(right + at)]!;
      if (a !== b || a === 0) return BigInt.asUintN(64, BigInt(a - b));
    }
  };
  return new Map<number, Helper>([
    [0, gatherBytes],
    [1, memfrob],
    [2, () => 0n],
    [3, (r1) => BigInt(Math.trunc(Math.sqrt(Number(r1))))],
    [4, strcmp],
    [5, unwind],
  ]);
}
