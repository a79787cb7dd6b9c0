// Objects that clang makes of real C, beside what LLVM's tools, bpftool and libbpf say about the same files.
import assert from 'node:assert/strict';
import { closeSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { BPF_TYPE, loadBpfProgram, testBpfProgram } from '../../src/memory/os/bpf.js';
import { BTF_KIND } from '../../src/wire/btf.js';
import { encodeProgram } from '../../src/xdp/isa/code.js';
import { CODE } from '../../src/xdp/isa/opcodes.js';
import { type BpfProgram, IMM64 } from '../../src/xdp/isa/program.js';
import type { JsonValue } from '../../src/xdp/object/btf-json.js';
import { parseElf } from '../../src/xdp/object/elf.js';
import { type BpfObject, loadObject } from '../../src/xdp/object/object.js';
import { CPUS, Objects, PROGRAMS, tool, without } from './clang.js';

const NAMES = readdirSync(PROGRAMS)
  .filter((file) => file.endsWith('.c'))
  .map((file) => file.slice(0, -2));
const objects = new Objects();
after(() => objects.remove());
const RETURN_PASS = [
  { code: 0xb7, dst: 0, src: 0, off: 0, imm: 2 },
  { code: CODE.EXIT, dst: 0, src: 0, off: 0, imm: 0 },
];
const noClang = without('clang');
const noLlvm = noClang || without('llvm-objdump', 'llvm-readelf');
const noBpftool = noClang || without('bpftool');

/** What `named` is can only be told. */
const load = (name: string, ...more: Parameters<Objects['bytes']> extends [string, ...infer R] ? R : never) =>
  loadObject(objects.bytes(name, ...more), { types: { mine: 'xdp' } });

interface Listing {
  /** Bytes of the instructions of each section, by slot. */
  readonly code: ReadonlyMap<string, ReadonlyMap<number, string>>;
  /** Slots with a relocation. */
  readonly relocated: ReadonlyMap<string, ReadonlySet<number>>;
  /** Where functions are: section and slot. */
  readonly functions: ReadonlyMap<string, { section: string; slot: number }>;
}

/** llvm-objdump's view of an object. */
function listing(file: string): Listing {
  const code = new Map<string, Map<number, string>>();
  const relocated = new Map<string, Set<number>>();
  const functions = new Map<string, { section: string; slot: number }>();
  let section = '';
  for (const line of tool('llvm-objdump', '-d', '-r', file).stdout.split('\n')) {
    const [, named] = /^Disassembly of section (.*):$/.exec(line) ?? [];
    const [, at, name] = /^([0-9a-f]{16}) <(.*)>:$/.exec(line) ?? [];
    const [, slot, bytes] = /^ +(\d+):\t((?:[0-9a-f]{2} )*[0-9a-f]{2})\t/.exec(line) ?? [];
    const [, offset] = /^\t+([0-9a-f]{16}): +R_BPF/.exec(line) ?? [];
    if (named !== undefined) {
      section = named;
      code.set(section, new Map());
      relocated.set(section, new Set());
    } else if (name !== undefined) functions.set(name, { section, slot: Number.parseInt(at!, 16) / 8 });
    else if (slot !== undefined) code.get(section)!.set(Number(slot), bytes!.replaceAll(' ', ''));
    else if (offset !== undefined) relocated.get(section)!.add(Number.parseInt(offset, 16) / 8);
  }
  return { code, relocated, functions };
}

for (const cpu of CPUS) {
  test(`${cpu}: instructions are those of llvm-objdump, but for relocations and calls`, { skip: noLlvm }, () => {
    let compared = 0;
    for (const name of NAMES) {
      const { code, relocated, functions } = listing(objects.file(name, cpu));
      for (const program of load(name, cpu).programs) {
        program.subprograms.forEach((one, i) => {
          const { section, slot: from } = functions.get(one.name)!;
          const end = program.subprograms[i + 1]?.start ?? program.insns.length;
          for (let slot = one.start; slot < end; slot++) {
            const insn = program.insns[slot]!;
            const there = slot - one.start + from;
            const wide = insn.code === CODE.LDDW ? 2 : 1;
            const changed = relocated.get(section)!.has(there) || (insn.code === CODE.CALL && insn.src === 1);
            const bytes = Buffer.from(encodeProgram(program.insns.slice(slot, slot + wide))).toString('hex');
            const wanted = code.get(section)!.get(there);
            const place = `${name} ${program.name}/${one.name}, slot ${there} of ${section}`;
            // The operation stays whatever a relocation puts into the rest.
            if (changed) assert.equal(bytes.slice(0, 2), wanted?.slice(0, 2), place);
            else assert.equal(bytes, wanted, place);
            compared++;
            if (wide === 2) slot++;
          }
        });
      }
    }
    assert.ok(compared > 200, `${compared} instructions`);
  });
}

test('sections and symbols are those of llvm-readelf', { skip: noLlvm }, () => {
  for (const name of NAMES) {
    const file = objects.file(name);
    const { sections, symbols } = parseElf(objects.bytes(name));
    const lines = tool('llvm-readelf', '-S', '-s', '-W', file).stdout.split('\n');
    const heads = lines.flatMap((line) => {
      const [, index, title, size] = /^ +\[ *(\d+)\] (\S*) +\S+ +[0-9a-f]{16} [0-9a-f]+ ([0-9a-f]+) /.exec(line) ?? [];
      return index === undefined ? [] : [`${index} ${title} ${Number.parseInt(size!, 16)}`];
    });
    assert.deepEqual(
      sections.map(({ index, name: title, size }) => `${index} ${title} ${size}`),
      heads,
    );
    const rows = lines.flatMap((line) => {
      const match = /^ +\d+: ([0-9a-f]{16}) +(\d+) (\w+) +(\w+) +\w+ +(\w+) ?(.*)$/.exec(line);
      return match ? [`${match[6]} ${Number.parseInt(match[1]!, 16)} ${match[2]} ${match[5]}`] : [];
    });
    const places = new Map([
      [0, 'UND'],
      [0xfff1, 'ABS'],
    ]);
    assert.deepEqual(
      symbols.map((symbol) => {
        const place = places.get(symbol.section) ?? String(symbol.section);
        return `${symbol.name} ${symbol.value} ${symbol.size} ${place}`;
      }),
      rows,
    );
  }
});

test('BTF is that of bpftool', { skip: noBpftool }, () => {
  interface Dumped {
    readonly id: number;
    readonly kind: string;
    readonly name: string;
    readonly size?: number;
    readonly type_id?: number;
    readonly nr_bits?: number;
    readonly nr_elems?: number;
    readonly members?: readonly { name: string; type_id: number; bits_offset: number; bitfield_size?: number }[];
    readonly values?: readonly { name: string; val: string }[];
    readonly params?: readonly { name: string; type_id: number }[];
    readonly vars?: readonly { type_id: number; offset: number; size: number }[];
  }
  const plain = (name: string) => (name === '(anon)' ? '' : name);
  for (const name of NAMES) {
    const { btf } = load(name);
    // Negative values come as 64 bits without sign.
    const dump = tool('bpftool', '-j', 'btf', 'dump', 'file', objects.file(name)).stdout;
    const { types } = JSON.parse(dump.replaceAll(/"val":(-?\d+)/g, '"val":"$1"')) as {
      types: Dumped[];
    };
    assert.equal(btf!.types.length, types.length + 1);
    for (const wanted of types) {
      const type = btf!.type(wanted.id);
      const place = `${name}, type ${wanted.id} ${wanted.kind} ${wanted.name}`;
      assert.equal(type.kind, BTF_KIND[wanted.kind as keyof typeof BTF_KIND], place);
      assert.equal(type.name, plain(wanted.name), place);
      if ('size' in type) assert.equal(type.size, wanted.size, place);
      if ('type' in type && wanted.type_id !== undefined) assert.equal(type.type, wanted.type_id, place);
      if (type.kind === BTF_KIND.INT) assert.equal(type.bits, wanted.nr_bits, place);
      if (type.kind === BTF_KIND.ARRAY) {
        assert.deepEqual([type.count, type.element], [wanted.nr_elems, wanted.type_id], place);
      }
      if ('members' in type) {
        assert.deepEqual(
          type.members.map((one) => [one.name, one.type, one.bitOffset, one.bitSize]),
          wanted.members!.map((one) => [plain(one.name), one.type_id, one.bits_offset, one.bitfield_size ?? 0]),
          place,
        );
      }
      if ('values' in type) {
        assert.deepEqual(
          type.values.map((one) => [one.name, BigInt.asUintN(32, one.value)]),
          wanted.values!.map((one) => [one.name, BigInt.asUintN(32, BigInt(one.val))]),
          place,
        );
      }
      if ('parameters' in type) {
        assert.deepEqual(
          type.parameters.map((one) => [one.name, one.type]),
          wanted.params!.map((one) => [plain(one.name), one.type_id]),
          place,
        );
      }
    }
  }
});

/** What libbpf says about an object while bpftool opens it (nothing is loaded). */
const libbpf = (name: string): string[] =>
  tool('bpftool', '-d', 'gen', 'skeleton', objects.file(name))
    .stderr.split('\n')
    .filter((line) => line.startsWith('libbpf: '));

test("map definitions are libbpf's", { skip: noBpftool }, () => {
  const fields = {
    ...{ type: 'type', key_size: 'keySize', value_size: 'valueSize', max_entries: 'maxEntries' },
    ...{ map_flags: 'flags', numa_node: 'numaNode', map_extra: 'extra', pinning: 'pinned' },
  } as const;
  let compared = 0;
  for (const name of ['count', 'maps'] as const) {
    const { maps } = load(name);
    for (const line of libbpf(name)) {
      const [, map, field, , size] = /map '(.*)': found (\w+)(?: \[(\d+)\], sz)? = (\w+)\.$/.exec(line) ?? [];
      if (map === undefined) continue;
      const [outer, inner] = map.split('.');
      const found = maps.find((one) => one.name === outer)!;
      const shape = inner === undefined ? found : found.inner!;
      const key = fields[(field === 'key' || field === 'value' ? `${field}_size` : field) as keyof typeof fields];
      assert.equal(Number((shape as unknown as Record<string, unknown>)[key]), Number(size), line);
      compared++;
    }
  }
  assert.ok(compared > 40, `${compared} facts`);
});

test("relocations are libbpf's: which map, which variable, which function", { skip: noBpftool }, () => {
  let compared = 0;
  for (const name of ['count', 'maps', 'legacy', 'callback', 'values']) {
    const object = load(name);
    for (const line of libbpf(name)) {
      const [, function_, map, slot] =
        /prog '(.*)': found (?:data )?map \d+ \(([^,]*), .*\) for insn #?(\d+)$/.exec(line) ?? [];
      if (function_ === undefined) continue;
      for (const { insns, subprograms } of object.programs) {
        const start = subprograms.find((one) => one.name === function_)?.start;
        if (start === undefined) continue;
        const insn = insns[start + Number(slot)]!;
        assert.equal(insn.code, CODE.LDDW, line);
        const referred = object.maps[insn.imm]!;
        // libbpf puts the object's name before those of data sections.
        assert.equal(referred.name, referred.data ? `.${map!.split('.')[1]}` : map, line);
        assert.equal(insn.src, referred.data ? IMM64.MAP_VALUE : IMM64.MAP, line);
        compared++;
      }
    }
  }
  assert.ok(compared > 10, `${compared} relocations`);
});

test('source lines are those of the source', { skip: noClang }, () => {
  for (const name of NAMES) {
    const source = readFileSync(path.join(PROGRAMS, `${name}.c`), 'utf8').split('\n');
    for (const { lines, insns, name: program } of load(name).programs) {
      assert.equal(lines.length, insns.length);
      assert.ok(lines.filter((line) => line !== undefined).length * 2 > insns.length, program);
      for (const line of lines) {
        if (!line) continue;
        assert.equal(path.basename(line.file), `${name}.c`);
        assert.equal(line.text, source[line.line - 1], `${program}, line ${line.line}`);
      }
    }
  }
});

test('programs, types, subprograms, licenses, notes', { skip: noClang }, () => {
  const facts = (object: BpfObject) =>
    Object.fromEntries(
      object.programs.map(({ name, type, subprograms }) => [name, [type, ...subprograms.map((one) => one.name)]]),
    );
  assert.deepEqual(facts(load('count')), {
    count_all: ['xdp', 'count_all', 'is_fragment', 'count'],
    count_frags: ['xdp.frags', 'count_frags', 'count'],
  });
  assert.deepEqual(facts(load('maps')), {
    first: ['xdp', 'first'],
    second: ['xdp', 'second'],
    to_device: ['xdp/devmap', 'to_device'],
    to_cpu: ['xdp.frags/cpumap', 'to_cpu'],
  });
  assert.deepEqual(facts(load('callback')), {
    with_loop: ['xdp', 'with_loop', 'add', 'mix'],
    with_call: ['xdp', 'with_call', 'mix'],
  });
  assert.equal(load('drop').license, 'Dual MIT/GPL');
  const named = load('named');
  assert.deepEqual(Object.keys(facts(named)).sort(), ['my_program', 'usual']);
  assert.deepEqual(named.notes, ['section "kprobe/tcp_connect" skipped, not XDP: "probe"']);
  assert.deepEqual(named.runConfigs.get('my_program'), { priority: 10, chainOn: ['XDP_DROP'] });
  const untold = loadObject(objects.bytes('named'));
  assert.deepEqual(Object.keys(facts(untold)), ['usual']);
  assert.match(untold.notes.join('\n'), /"my_program" skipped: section "mine" does not tell its type/);
});

test('what is in maps before programs run', { skip: noClang }, () => {
  const { maps, notes } = load('maps');
  const initial = (name: string) => maps.find((map) => map.name === name)!.initial;
  const index = (name: string) => maps.findIndex((map) => map.name === name);
  assert.deepEqual(initial('tables'), [
    { key: 0, map: index('table_a') },
    { key: 2, map: index('table_b') },
  ]);
  assert.deepEqual(initial('jumps'), [{ key: 1, program: 'second' }]);
  assert.ok(notes.includes('map "jumps": 1 entries left out, their programs are not XDP'), notes.join('\n'));
});

test('legacy maps', { skip: noClang }, () => {
  const { maps } = load('legacy');
  const facts = maps.map(({ name, type, keySize, valueSize, maxEntries, flags }) =>
    [name, type, keySize, valueSize, maxEntries, flags].join(' '),
  );
  assert.deepEqual(facts, ['old_array 2 4 8 16 0', 'old_hash 1 6 4 1000 1']);
});

const ALL: JsonValue = {
  ...{ u8: 200, s8: -100, u16: 60_000, s16: -30_000, u32: 4_000_000_000, s32: -2_000_000_000 },
  ...{ u64: 9_007_199_254_740_991, s64: -5, large: '18364758544493064720', yes: true, letter: 'x', text: 'hello' },
  ...{ full: 'full', binary: [1, 255, 0], mac: [0, 21, 93, 1, 2, 3], color: 'BLUE', odd: 77 },
  points: [
    { x: 1, y: -2 },
    { x: 3, y: 4 },
  ],
  grid: [
    [1, 2, 3],
    [4, 5, 6],
  ],
  ...{ word: 0x04030201, bytes: [1, 2, 3, 4], bits: { low: 5, middle: 1029, negative: -3, shade: 'GREEN' } },
  ...{ pointer: '0x0', d: 0.25, f: -1.5, names: ['ab', 'cde'] },
};

test('global variables: values that the compiler wrote, by their types', { skip: noClang }, () => {
  for (const cpu of CPUS) {
    const object = load('values', cpu);
    const all = object.globals.find((variable) => variable.name === 'all')!;
    assert.deepEqual(object.globalValue(all), ALL);
    assert.equal(all.constant, false);
    // Written back whole, into the variable of the same type that is all zeros.
    object.setGlobal('none', object.globalValue(all));
    const none = object.globals.find((variable) => variable.name === 'none')!;
    assert.deepEqual(object.globalValue(none), ALL);
    assert.equal(none.constant, true);
    const bytes = ({ map, offset, size }: typeof none) =>
      Buffer.from(object.maps[map]!.data!.subarray(offset, offset + size)).toString('hex');
    assert.equal(bytes(none), bytes(all));
  }
});

test('constants are changed by name before programs run; a bad value changes nothing', { skip: noClang }, () => {
  const object = load('count');
  const value = (name: string) => object.globalValue(object.globals.find((variable) => variable.name === name)!);
  assert.deepEqual(['sample_every', 'limit', 'last_queue', 'hidden', 'seen'].map(value), [1, 1500, 77, [1, 2, 3], 0]);
  object.setGlobal('sample_every', 100);
  object.setGlobal('limit', '0x800');
  object.setGlobal('hidden', [7]);
  assert.deepEqual(['sample_every', 'limit', 'hidden'].map(value), [100, 2048, [7, 2, 3]]);
  const rodata = object.maps.find((map) => map.name === '.rodata')!;
  assert.ok(rodata.constant);
  assert.equal(Buffer.from(rodata.data!).toString('hex'), '64000000' + '00000000' + '0008');
  assert.throws(() => object.setGlobal('limit', 65_536), /limit: expected an integer 0\.\.65535, got 65536/);
  assert.throws(() => object.setGlobal('hidden', [1, -1]), /hidden\[1\]/);
  assert.throws(() => object.setGlobal('limits', 1), /"limits": there is none; the object has "sample_every"/);
  assert.deepEqual(['limit', 'hidden'].map(value), [2048, [7, 2, 3]]);
});

test('variables that instructions refer to', { skip: noClang }, () => {
  const object = load('count');
  const names = (program: BpfProgram) =>
    program.insns.flatMap((insn, slot) => {
      if (insn.code !== CODE.LDDW || insn.src !== IMM64.MAP_VALUE) return [];
      const at = program.insns[slot + 1]!.imm;
      const found = object.globals.find(
        ({ map, offset, size }) => map === insn.imm && at >= offset && at < offset + size,
      );
      return [found!.name];
    });
  assert.deepEqual(
    new Set(names(object.program('count_all'))),
    new Set(['seen', 'last_queue', 'hidden', 'limit', 'drop_fragments', 'sample_every']),
  );
});

test('CO-RE: what the loader puts in is what the compiler put there for its own types', { skip: noClang }, () => {
  const bytes = objects.bytes('core');
  const { btf } = load('core');
  const file = bytes.slice();
  // The compiler's own answers are taken out of the instructions that have a record.
  const code = parseElf(bytes).sections.find(({ name }) => name === 'xdp')!;
  const at = Buffer.from(file).indexOf(code.bytes);
  const original = loadObject(bytes).program().insns;
  const mov = (slot: number) => original[slot]!.code === 0xb7 || original[slot]!.code === CODE.LDDW;
  const load_ = (slot: number) => (original[slot]!.code & 0x07) === 1;
  let cleared = 0;
  original.forEach((insn, slot) => {
    const raw = new DataView(file.buffer, file.byteOffset + at + slot * 8, 8);
    // facts[n] = mov; loads of packet fields with an offset of the struct.
    if (mov(slot) && insn.src === 0 && insn.imm > 1) {
      raw.setInt32(4, 0, true);
      cleared++;
    } else if (load_(slot) && insn.off > 8) {
      raw.setInt16(2, 0, true);
      cleared++;
    }
  });
  assert.ok(cleared >= 8, `${cleared} numbers`);
  const again = loadObject(file).program().insns;
  const returned = new Set(again.flatMap((insn, slot) => (insn.code === 0xb7 && insn.dst === 0 ? [slot] : [])));
  const differ = again.flatMap((insn, slot) =>
    JSON.stringify(insn) === JSON.stringify(original[slot]) || returned.has(slot) ? [] : [slot],
  );
  assert.deepEqual(differ, []);
  const local = btf!.types.find((type) => type.name === 'local')!;
  assert.ok(original.some((insn) => insn.imm === local.id && insn.src === 0));
  assert.match(load('core').notes.join('\n'), /14 CO-RE records about kernel types resolved to the object's own/);
});

test('without -g: programs and maps of data, no names', { skip: noClang }, () => {
  const object = loadObject(objects.bytes('values', 'v3', '-g0'));
  assert.equal(object.btf, undefined);
  assert.deepEqual(object.globals, []);
  assert.deepEqual(
    object.maps.map(({ name }) => name),
    ['.data', '.rodata'],
  );
  assert.ok(object.program().lines.every((line) => line === undefined));
  assert.throws(() => loadObject(objects.bytes('count', 'v3', '-g0')), /section ".maps": expected BTF.*clang -g/);
});

test('objects of other byte order, and of other machines, by name', { skip: noClang }, () => {
  const swapped = objects.bytes('drop', 'v3', '--target=bpfeb');
  assert.throws(() => loadObject(swapped), /ELF byte order: expected little-endian/);
});

for (const cpu of CPUS) {
  test(`${cpu}: this machine's kernel takes what was linked, and answers`, { skip: noClang || noKernel() }, () => {
    const packet = new Uint8Array(64);
    for (const [name, program, verdict] of [
      ['drop', 'drop', 1],
      ['named', 'my_program', 2],
      // A call of a function that lay in another section; interface and queue are not both 0.
      ['callback', 'with_call', 2],
    ] as const) {
      const { insns } = load(name, cpu).program(program);
      const fd = loadBpfProgram(BPF_TYPE.XDP, encodeProgram(insns), program);
      try {
        assert.equal(testBpfProgram(fd, packet).result, verdict, program);
      } finally {
        closeSync(fd);
      }
    }
  });
}

/** Why the kernel cannot be asked. */
function noKernel(): string | false {
  try {
    closeSync(loadBpfProgram(BPF_TYPE.XDP, encodeProgram(RETURN_PASS), 'probe'));
    return false;
  } catch (error) {
    return `bpf(2): ${(error as Error).message}`;
  }
}
