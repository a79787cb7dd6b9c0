// What libxdp's XDP_RUN_CONFIG(program) says about a program among others on one interface.
import { BTF_KIND } from '../../wire/btf.js';
import type { Btf } from './btf.js';
import { ObjectError, quoted } from './errors.js';
import { declaredNumber } from './maps.js';

const SECTION = '.xdp_run_config';

/** Verdicts by their number. */
export const XDP_ACTIONS = ['XDP_ABORTED', 'XDP_DROP', 'XDP_PASS', 'XDP_TX', 'XDP_REDIRECT'] as const;
export type XdpAction = (typeof XDP_ACTIONS)[number];

export interface RunConfig {
  /** Lower runs first. */
  readonly priority: number;
  /** Verdicts after which the next program runs. */
  readonly chainOn: readonly XdpAction[];
}

/** libxdp's, for programs that say nothing. */
export const DEFAULT_RUN_CONFIG: RunConfig = { priority: 50, chainOn: ['XDP_PASS'] };

/** By name of the program. Throws ObjectError. */
export function runConfigs(btf: Btf | undefined): Map<string, RunConfig> {
  const found = new Map<string, RunConfig>();
  for (const { type: id } of btf?.section(SECTION)?.variables ?? []) {
    const variable = btf!.type(id);
    const shape = variable.kind === BTF_KIND.VAR ? btf!.plain(variable.type) : undefined;
    const bad = (what: string): never => {
      throw new ObjectError(`${quoted(variable.name)}: ${what}`, { section: SECTION });
    };
    if (shape?.kind !== BTF_KIND.STRUCT || !variable.name.startsWith('_')) {
      return bad('expected XDP_RUN_CONFIG(program): a struct whose name begins with "_"');
    }
    let { priority } = DEFAULT_RUN_CONFIG;
    const chainOn = new Set<string>(DEFAULT_RUN_CONFIG.chainOn);
    for (const { name, type } of shape.members) {
      const value = declaredNumber(btf!, type);
      if (value === undefined) return bad(`${quoted(name)}: expected __uint`);
      if (name === 'priority') priority = Number(value);
      else if (!XDP_ACTIONS.includes(name as XdpAction)) {
        bad(`expected priority or one of ${XDP_ACTIONS.join(', ')}, got ${quoted(name)}`);
      } else if (value !== 0n) chainOn.add(name);
      else chainOn.delete(name);
    }
    found.set(variable.name.slice(1), { priority, chainOn: XDP_ACTIONS.filter((action) => chainOn.has(action)) });
  }
  return found;
}
