// What the kernel may leave undone in packets that it writes to a TAP interface in front of a NetVSC device.
import { OFFLOAD } from '../memory/layout.js';
import { TAP_OFFLOAD } from '../memory/os/tap.js';

/** TAP offloads that the driver's granted offloads can serve; the kernel does the rest itself. */
export function tapOffload(granted: number): number {
  const checksums = OFFLOAD.TCP4_TX | OFFLOAD.TCP6_TX | OFFLOAD.UDP4_TX | OFFLOAD.UDP6_TX;
  if ((granted & checksums) === 0) return 0;
  // What the host does not sum, the driver does: TUN_F_CSUM is all or nothing.
  let bits: number = TAP_OFFLOAD.CSUM;
  if ((granted & OFFLOAD.LSO4) !== 0) bits |= TAP_OFFLOAD.TSO4 | TAP_OFFLOAD.TSO_ECN;
  if ((granted & OFFLOAD.LSO6) !== 0) bits |= TAP_OFFLOAD.TSO6 | TAP_OFFLOAD.TSO_ECN;
  return bits;
}
