// From jumps to WebAssembly's nested blocks: an order of the basic blocks in which loops are contiguous, and where scopes
// open and close.
import { type Block, Components } from '../isa/flow.js';

/** Blocks `first` to `end - 1` of the order, entered only at the first. */
interface Loop {
  readonly first: number;
  readonly end: number;
}

/** A scope to open before a place of the order: a loop, or a block whose end is right before place `end`. */
export interface Scope {
  readonly loop: boolean;
  /** Place of the order before which it closes. */
  readonly end: number;
}

export interface Structure {
  /** Indices of blocks, reachable ones only. */
  readonly order: readonly number[];
  /** Place of each block in the order, -1 where nothing reaches it. */
  readonly place: Int32Array;
  /** Scopes that open before each place, outermost first. */
  readonly opens: readonly (readonly Scope[])[];
}

/** Loops inside each other that are structured; deeper ones cost more to order than a dispatcher does to run. */
const MAX_NESTING = 16;

/** Topological order with contiguous loops, undefined where a loop has a second entry. */
function orderBlocks(blocks: readonly Block[]): { order: number[]; loops: Loop[] } | undefined {
  const order: number[] = [];
  const loops: Loop[] = [];
  /** Innermost region that a block is known to be in. */
  const region = new Int32Array(blocks.length);
  const predecessors: number[][] = blocks.map(() => []);
  blocks.forEach(({ next, target }, from) => {
    if (next >= 0) predecessors[next]!.push(from);
    if (target >= 0) predecessors[target]!.push(from);
  });
  let regions = 0;
  const components = new Components(blocks);
  const reached = new Uint8Array(blocks.length);
  const walk = (entry: number, id: number, header: number, depth: number): boolean => {
    if (depth > MAX_NESTING) return false;
    const found = components.find((block) => region[block] === id, entry, header);
    // All of them first: whether a loop is entered from outside shows only on blocks that are reached at all.
    if (header < 0) for (const members of found) for (const member of members) reached[member] = 1;
    for (const members of found) {
      const only = members[0]!;
      const self = blocks[only]!.target === only || blocks[only]!.next === only;
      if (members.length === 1 && (!self || only === header)) {
        order.push(only);
        continue;
      }
      const inside = new Set(members);
      const entries = members.filter(
        (member) => member === entry || predecessors[member]!.some((from) => reached[from] === 1 && !inside.has(from)),
      );
      if (entries.length !== 1) return false;
      const inner = ++regions;
      for (const member of members) region[member] = inner;
      const first = order.length;
      if (!walk(entries[0]!, inner, entries[0]!, depth + 1)) return false;
      loops.push({ first, end: order.length });
    }
    return true;
  };
  return walk(0, 0, -1, 0) ? { order, loops } : undefined;
}

/** How to nest a function's blocks; undefined where its control flow is irreducible, and a dispatcher must do. */
export function structureOf(blocks: readonly Block[]): Structure | undefined {
  const ordered = orderBlocks(blocks);
  if (ordered === undefined) return undefined;
  const { order, loops } = ordered;
  const place = new Int32Array(blocks.length).fill(-1);
  order.forEach((block, index) => {
    place[block] = index;
  });
  /** Where the scope of each forward target opens, itself where it needs none. */
  const opensAt = Int32Array.from(order.keys());
  order.forEach((block, from) => {
    const { next, target } = blocks[block]!;
    for (const to of [next, target]) {
      if (to < 0 || place[to]! <= from) continue;
      // Right behind: control falls into it, from a conditional jump only where the condition does not hold.
      if (place[to] === from + 1 && (to === next || next < 0)) continue;
      opensAt[place[to]!] = Math.min(opensAt[place[to]!]!, from);
    }
  });
  if (!widen(opensAt, loops)) return undefined;
  const opens: Scope[][] = order.map(() => []);
  for (const { first, end } of loops) opens[first]!.push({ loop: true, end });
  opensAt.forEach((from, to) => {
    if (from < to) opens[from]!.push({ loop: false, end: to });
  });
  // Who ends later opens first.
  for (const scopes of opens) scopes.sort((a, b) => b.end - a.end);
  return { order, place, opens };
}

/**
 * Moves openings of blocks to the front until no two scopes cross, that is until of two scopes that overlap one holds the
 * other. False where a loop would have to move, which no reducible function needs.
 */
function widen(opensAt: Int32Array, loops: readonly Loop[]): boolean {
  const scopes = loops.map(({ first, end }) => ({ from: first, end, loop: true }));
  opensAt.forEach((from, end) => {
    if (from < end) scopes.push({ from, end, loop: false });
  });
  scopes.sort((a, b) => a.end - b.end || b.from - a.from);
  /** The outermost scopes so far, from left to right. */
  const outer: { from: number; end: number }[] = [];
  for (const scope of scopes) {
    for (let last = outer.at(-1); last !== undefined && last.end > scope.from; last = outer.at(-1)) {
      if (last.from < scope.from) {
        if (scope.loop || last.end === scope.end) return false;
        scope.from = last.from;
      }
      outer.pop();
    }
    if (!scope.loop) opensAt[scope.end] = scope.from;
    outer.push(scope);
  }
  return true;
}
