// Device arguments of net_netvsc: names, meaning and defaults of DPDK's driver (seeds/dpdk-netvsc-pmd.rst.txt).
import type { Devargs } from '../../ethdev/devargs.js';

export interface NetvscArguments {
  /** How soon the host looks at the channels' monitors, in units of 100 ns; undefined = as the host has it. */
  readonly latency: number | undefined;
  /** Longer frames borrow the receive buffer, with rxExternal. */
  readonly rxCopybreak: number;
  /** Frames up to here are copied, several to a request. */
  readonly txCopybreak: number;
  readonly rxExternal: boolean;
  readonly numaAware: boolean;
}

const NAMES = ['latency', 'rx_copybreak', 'tx_copybreak', 'rx_extmbuf_enable', 'numa_aware'];
const LATENCY_US = 50;
const RX_COPYBREAK = 256;
const TX_COPYBREAK = 512;
/** The monitor page has 16 bits of 100 ns for each channel. */
const LATENCY_MAX_US = 6553;

/** Takes all arguments. `log` tells of a latency that cannot be set. Throws PortError for what is no number, or unknown. */
export function readArguments(args: Devargs, log: (line: string) => void): NetvscArguments {
  const latencyUs = args.number('latency', LATENCY_US);
  const result = {
    latency: latencyUs > LATENCY_MAX_US ? undefined : latencyUs * 10,
    rxCopybreak: args.number('rx_copybreak', RX_COPYBREAK),
    txCopybreak: args.number('tx_copybreak', TX_COPYBREAK),
    rxExternal: args.flag('rx_extmbuf_enable'),
    numaAware: args.flag('numa_aware'),
  };
  args.done(NAMES);
  if (result.latency === undefined)
    log(`latency=${latencyUs} is ignored: expected at most ${LATENCY_MAX_US} us, the host's own stays`);
  return result;
}
