// What a section's name says about the programs in it (libbpf's documentation, "program types and ELF sections").
import type { ProgramType } from '../isa/program.js';

export const PROGRAM_TYPES: readonly ProgramType[] = [
  'xdp',
  'xdp.frags',
  'xdp/devmap',
  'xdp.frags/devmap',
  'xdp/cpumap',
  'xdp.frags/cpumap',
];

/** Longest first. `xdp_devmap/name` is from before libbpf 0.7. */
const XDP: readonly (readonly [RegExp, ProgramType])[] = [
  [/^xdp\.frags\/devmap(\/|$)/, 'xdp.frags/devmap'],
  [/^xdp\.frags\/cpumap(\/|$)/, 'xdp.frags/cpumap'],
  [/^xdp(\/|_)devmap(\/|$)/, 'xdp/devmap'],
  [/^xdp(\/|_)cpumap(\/|$)/, 'xdp/cpumap'],
  [/^xdp\.frags(\/|$)/, 'xdp.frags'],
  // Before libbpf 1.0 whatever followed was the programmer's own.
  [/^xdp/, 'xdp'],
];

/** Sections of programs that attach elsewhere, up to a slash, a dot or the end. */
const OTHERS =
  'kprobe uprobe kretprobe uretprobe ksyscall kretsyscall usdt tc tcx netkit classifier action tracepoint tp ' +
  'raw_tracepoint raw_tp tp_btf fentry fexit fmod_ret fsession freplace lsm lsm_cgroup iter syscall perf_event lwt_in ' +
  'lwt_out lwt_xmit lwt_seg6local sk_skb sk_msg sk_lookup sk_reuseport sockops socket flow_dissector netfilter ' +
  'lirc_mode2 struct_ops cgroup cgroup_skb';
const OTHER = new Set(OTHERS.split(' '));

export interface SectionMeaning {
  /** Of XDP programs; undefined for all others. */
  readonly type?: ProgramType;
  /** A name of libbpf's: what it means needs no telling. */
  readonly known: boolean;
  /** `?` before the name: not to be attached unless somebody asks. */
  readonly optional: boolean;
}

/** Looks at the name of a section of instructions. */
export function sectionMeaning(name: string): SectionMeaning {
  const optional = name.startsWith('?');
  const text = optional ? name.slice(1) : name;
  const type = XDP.find(([pattern]) => pattern.test(text))?.[1];
  if (type) return { type, known: true, optional };
  return { known: OTHER.has(text.split(/[/.]/)[0]!), optional };
}
