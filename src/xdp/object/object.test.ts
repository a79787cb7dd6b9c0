// Objects made by hand: what is refused, with which words, and what compilers do not make. Those of clang are in test/xdp.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BTF_KIND, BtfExtCore, BtfExtHeader } from '../../wire/btf.js';
import { ELF_SECTION_TYPE, ELF_SYMBOL_BIND, ELF_SYMBOL_TYPE } from '../../wire/elf.js';
import { CODE } from '../isa/opcodes.js';
import { OBJECT_LIMITS } from './elf.js';
import { ObjectError } from './errors.js';
import { type LoadOptions, loadObject } from './object.js';
import {
  BtfWriter,
  codeSection,
  concat,
  makeObject,
  type TestObject,
  type TestSection,
  words,
} from './object-testing.js';

const EXIT = { code: CODE.EXIT };
const ZERO = { code: 0xb7 };
const LOCAL_CALL = { code: CODE.CALL, src: 1, imm: -1 };
const WIDE = [{ code: CODE.LDDW, dst: 1 }, { code: 0 }];
const { OBJECT, NOTYPE, SECTION } = ELF_SYMBOL_TYPE;
const plain: TestSection = codeSection('xdp', [ZERO, EXIT]);

const load = (object: TestObject, options?: LoadOptions) => loadObject(makeObject(object), options);
const text = (value: string) => new TextEncoder().encode(`${value}\0`);

/** The way to a refusal. */
function refused(object: TestObject | Uint8Array, expected: RegExp, options?: LoadOptions): ObjectError {
  const bytes = object instanceof Uint8Array ? object : makeObject(object);
  let caught: unknown;
  try {
    loadObject(bytes, options);
  } catch (error) {
    caught = error;
  }
  assert.ok(caught instanceof ObjectError, `expected an ObjectError, got ${caught}`);
  assert.match(caught.message, expected);
  return caught;
}

test('a section without symbols is one program', () => {
  const object = load({ sections: [plain, { name: 'license', bytes: text('MIT') }] });
  assert.equal(object.license, 'MIT');
  assert.deepEqual(
    object.programs.map(({ name, type, insns, subprograms, lines }) => [name, type, insns.length, subprograms, lines]),
    [['xdp', 'xdp', 2, [{ name: 'xdp', start: 0 }], [undefined, undefined]]],
  );
});

test('functions of older compilers: global symbols without a type; labels are none', () => {
  const object = load({
    sections: [codeSection('xdp', [ZERO, EXIT, ZERO, EXIT])],
    symbols: [
      { name: 'one', section: 'xdp', type: NOTYPE },
      { name: 'LBB0_1', section: 'xdp', value: 8, type: NOTYPE, bind: ELF_SYMBOL_BIND.LOCAL },
      { name: 'two', section: 'xdp', value: 16, type: NOTYPE },
    ],
  });
  assert.deepEqual(
    object.programs.map(({ name, insns }) => [name, insns.length]),
    [
      ['one', 2],
      ['two', 2],
    ],
  );
  assert.equal(object.program('two').name, 'two');
  assert.throws(() => object.program(), /expected the name of a program: the object has "one", "two"/);
  assert.throws(() => object.program('three'), /no program "three"/);
});

test('calls of functions in other sections: linked behind, once', () => {
  const object = load({
    sections: [
      codeSection('xdp', [LOCAL_CALL, { ...LOCAL_CALL, imm: 1 }, EXIT]),
      codeSection('.text', [ZERO, EXIT, { ...LOCAL_CALL, imm: -3 }, EXIT]),
    ],
    symbols: [
      { name: '', section: '.text', type: SECTION, bind: ELF_SYMBOL_BIND.LOCAL },
      { name: 'main', section: 'xdp', size: 24 },
      { name: 'leaf', section: '.text', size: 16 },
      { name: 'middle', section: '.text', value: 16, size: 16 },
    ],
    relocations: [
      { section: 'xdp', offset: 0, type: 10, symbol: 'leaf' },
      { section: 'xdp', offset: 8, type: 10, symbol: '' },
    ],
  });
  const { insns, subprograms } = object.program();
  assert.deepEqual(subprograms, [
    { name: 'main', start: 0 },
    { name: 'leaf', start: 3 },
    { name: 'middle', start: 5 },
  ]);
  const targets = insns.flatMap((insn, slot) => (insn.code === CODE.CALL ? [[slot, slot + 1 + insn.imm]] : []));
  assert.deepEqual(targets, [
    [0, 3],
    [1, 5],
    [5, 3],
  ]);
});

test('a weak symbol that nobody has: address 0, a call that nobody answers, a note', () => {
  const object = load({
    sections: [codeSection('xdp', [...WIDE, { ...LOCAL_CALL }, EXIT])],
    symbols: [
      { name: 'main', section: 'xdp', size: 32 },
      { name: 'maybe', type: NOTYPE, bind: ELF_SYMBOL_BIND.WEAK },
    ],
    relocations: [
      { section: 'xdp', offset: 0, type: 1, symbol: 'maybe' },
      { section: 'xdp', offset: 16, type: 10, symbol: 'maybe' },
    ],
  });
  const { insns } = object.program();
  assert.deepEqual([insns[0]!.imm, insns[0]!.src, insns[2]!.imm, insns[2]!.src], [0, 0, 2_002_000_000, 0]);
  assert.match(object.notes.join('\n'), /"maybe" is not defined in the object.*it is weak/);
});

const named = (name: string) => ({ sections: [codeSection(name, [ZERO, EXIT])] });

test('types by section names', () => {
  for (const [name, type] of [
    ['xdp', 'xdp'],
    ['xdp/prog', 'xdp'],
    ['xdp_prog', 'xdp'],
    ['xdp1', 'xdp'],
    ['xdp.frags', 'xdp.frags'],
    ['xdp.frags/x', 'xdp.frags'],
    ['xdp/devmap', 'xdp/devmap'],
    ['xdp/devmap/x', 'xdp/devmap'],
    ['xdp_devmap/x', 'xdp/devmap'],
    ['xdp/devmaps', 'xdp'],
    ['xdp.frags/devmap', 'xdp.frags/devmap'],
    ['xdp/cpumap', 'xdp/cpumap'],
    ['xdp.frags/cpumap', 'xdp.frags/cpumap'],
    ['?xdp', 'xdp'],
  ] as const) {
    assert.deepEqual(
      load(named(name)).programs.map((program) => program.type),
      [type],
      name,
    );
  }
});

test('other sections: skipped with a note, loaded when told what they are', () => {
  assert.match(load(named('tp_btf/netif_rx')).notes.join(), /section "tp_btf\/netif_rx" skipped, not XDP/);
  assert.match(load(named('mine')).notes.join(), /program "mine" skipped: section "mine" does not tell its type/);
  assert.equal(load(named('mine'), { type: 'xdp.frags' }).program().type, 'xdp.frags');
  assert.equal(load(named('mine'), { types: { mine: 'xdp/cpumap' } }).program().type, 'xdp/cpumap');
  assert.equal(load(named('tc'), { type: 'xdp' }).programs.length, 0);
  assert.equal(load(named('.text'), { types: { '.text': 'xdp' } }).program().name, '.text');
  assert.equal(load(named('constructor')).programs.length, 0);
});

test('a map of the form from before BTF; one that iproute2 knows', () => {
  const records = concat([words(1, 4, 8, 16, 1, 7, 2, 0, 0), words(13, 4, 4, 2, 0, 0, 0, 7, 0)]);
  const object = load({
    sections: [codeSection('xdp', [...WIDE, EXIT]), { name: 'maps', bytes: records }],
    symbols: [
      { name: 'main', section: 'xdp', size: 24 },
      { name: 'inner', section: 'maps', type: OBJECT, size: 36 },
      { name: 'outer', section: 'maps', type: OBJECT, value: 36, size: 36 },
    ],
    relocations: [{ section: 'xdp', offset: 0, type: 1, symbol: 'outer' }],
  });
  const shape = { type: 1, keySize: 4, valueSize: 8, maxEntries: 16, flags: 1, numaNode: 0, extra: 0n };
  const common = { section: 'maps', initial: [], constant: false };
  assert.deepEqual(object.maps, [
    { index: 0, name: 'inner', ...shape, ...common, pinned: true },
    {
      ...{
        index: 1,
        name: 'outer',
        type: 13,
        keySize: 4,
        valueSize: 4,
        maxEntries: 2,
        flags: 0,
        numaNode: 0,
        extra: 0n,
      },
      ...{ ...common, pinned: false, inner: shape },
    },
  ]);
  const [first] = object.program().insns;
  assert.deepEqual([first!.src, first!.imm], [1, 1]);
});

/** An object with one map of BTF. */
function withMap(members: (w: BtfWriter, int: number) => readonly (readonly [string, number])[]): TestObject {
  const w = new BtfWriter();
  const int = w.int('int', 4, 1);
  const list = members(w, int);
  const shape = w.struct(
    BTF_KIND.STRUCT,
    '',
    list.length * 8,
    list.map(([name, type], i) => [name, type, i * 64] as const),
  );
  w.section('.maps', [{ type: w.variable('m', shape), offset: 0, size: list.length * 8 }]);
  return {
    sections: [
      plain,
      { name: '.maps', bytes: new Uint8Array(list.length * 8) },
      { name: '.BTF', bytes: w.bytes(), flags: 0 },
    ],
    symbols: [{ name: 'm', section: '.maps', type: OBJECT, size: list.length * 8 }],
  };
}

for (const [what, members, expected] of [
  ['an unknown member', (w, int) => [['colour', w.number(int, 1)]], /expected type, key.*got a member "colour"/],
  ['a number that is none', (_, int) => [['type', int]], /type: expected __uint, got int/],
  ['a key that is no type', (_, int) => [['key', int]], /key: expected __type, got int/],
  [
    'sizes that differ',
    (w, int) => [
      ['key_size', w.number(int, 8)],
      ['key', w.type(BTF_KIND.PTR, '', int)],
    ],
    /key: 4 bytes, where another member says 8/,
  ],
  ['an unknown pinning', (w, int) => [['pinning', w.number(int, 2)]], /pinning: expected 0 \(none\) or 1/],
  [
    'values in a map of numbers',
    (w, int) => [
      ['type', w.number(int, 1)],
      ['values', w.array(int, 0)],
    ],
    /values: expected in a map of maps/,
  ],
  [
    'values that are not the last',
    (w, int) => [
      ['values', w.array(int, 0)],
      ['type', w.number(int, 12)],
    ],
    /values: expected as the last member/,
  ],
  ['a key of void', (w) => [['key', w.type(BTF_KIND.PTR, '', 0)]], /void has no size/],
] as const satisfies readonly (readonly [
  string,
  (w: BtfWriter, int: number) => readonly (readonly [string, number])[],
  RegExp,
])[]) {
  test(`.maps with ${what}: refused`, () => {
    refused(withMap(members), expected);
  });
}

const xdp = (insns: Parameters<typeof codeSection>[1], more: Partial<TestObject> = {}): TestObject => ({
  sections: [codeSection('xdp', insns), { name: '.data', bytes: new Uint8Array(8) }, { name: 'odd', bytes: text('x') }],
  symbols: [
    { name: 'main', section: 'xdp', size: insns.length * 8 },
    { name: 'data', section: '.data', type: OBJECT },
    { name: 'odd', section: 'odd', type: OBJECT },
    { name: 'kernel', type: NOTYPE },
  ],
  ...more,
});
const relocate = (type: number, symbol: string, offset = 0) => ({
  relocations: [{ section: 'xdp', offset, type, symbol }],
});

for (const [what, object, expected] of [
  ['nothing', new Uint8Array(0), /ELF64_HEADER: expected 64 bytes/],
  ['text', text('#!/bin/sh'.repeat(10)), /magic: expected 0x464c457f, got 0x622f2123/],
  ['too much', new Uint8Array(OBJECT_LIMITS.bytes + 1), /expected at most 16777216 bytes/],
  ['32 bits', makeObject({ sections: [plain], header: { elfClass: 1 } }), /ELF class: expected 64-bit \(2\), got 1/],
  ['big-endian', makeObject({ sections: [plain], header: { data: 2 } }), /little-endian .*bpfel\), got 2/],
  ['another machine', makeObject({ sections: [plain], header: { machine: 62 } }), /BPF \(247\), got 62/],
  ['a program', makeObject({ sections: [plain], header: { type: 2 } }), /a relocatable object \(1\), got 2/],
  ['no sections', makeObject({ sections: [plain], header: { sectionCount: 0 } }), /expected section headers, got none/],
  [
    'many sections',
    makeObject({ sections: [plain], header: { sectionCount: 999 } }),
    /expected 999 section headers, got/,
  ],
  [
    'names elsewhere',
    makeObject({ sections: [plain], header: { sectionNames: 1 } }),
    /expected a string table in section 1/,
  ],
  ['two symbol tables', { sections: [plain, { name: 's', type: ELF_SECTION_TYPE.SYMTAB }] }, /one symbol table, got 2/],
  ['two sections of a name', { sections: [plain, plain] }, /section "xdp": expected one section of this name/],
  ['a large .bss', { sections: [{ name: '.bss', type: 8, size: 2 ** 31 }] }, /section ".bss": size: expected at most/],
  [
    'half an instruction',
    { sections: [{ ...plain, bytes: new Uint8Array(12) }] },
    /section "xdp": expected instructions of 8 bytes, got 12/,
  ],
  [
    'a symbol outside',
    { sections: [plain], symbols: [{ name: 'f', section: 'xdp', value: 16, size: 8 }] },
    /"f": 8 bytes at 16 of section "xdp", of 16 bytes/,
  ],
  [
    'functions that overlap',
    {
      sections: [plain],
      symbols: [
        { name: 'f', section: 'xdp', size: 16 },
        { name: 'g', section: 'xdp', value: 8, size: 8 },
      ],
    },
    /function "g" overlaps "f"/,
  ],
  [
    'a function of 4 bytes',
    { sections: [plain], symbols: [{ name: 'f', section: 'xdp', size: 4 }] },
    /function "f": 4 bytes are no instructions/,
  ],
  [
    'relocation of no call',
    xdp([ZERO, EXIT], relocate(10, 'main')),
    /program "main", instruction 0: relocation R_BPF_64_32 \(symbol "main"\): expected .*code is 0xb7/,
  ],
  ['relocation of a kind unknown', xdp([...WIDE, EXIT], relocate(77, 'data')), /relocation 0x4d/],
  [
    'relocation inside',
    xdp([...WIDE, EXIT], relocate(1, 'data', 8)),
    /instruction 1: a relocation inside of a 64-bit immediate/,
  ],
  [
    'relocation between',
    xdp([...WIDE, EXIT], relocate(1, 'data', 4)),
    /relocation at byte 4: expected a multiple of 8/,
  ],
  ['relocation outside', xdp([...WIDE, EXIT], relocate(1, 'data', 80)), /offset 80 is outside of section "xdp"/],
  [
    'a kernel function',
    xdp([LOCAL_CALL, EXIT], relocate(10, 'kernel')),
    /"kernel" is not defined in the object \(extern\): a kernel function/,
  ],
  [
    'a kernel variable',
    xdp([...WIDE, EXIT], relocate(1, 'kernel')),
    /"kernel" is not defined.*a variable of the kernel/,
  ],
  [
    'an address of anything',
    xdp([...WIDE, EXIT], relocate(1, 'odd')),
    /address of "odd", byte 0 of section "odd": expected a map, a variable or a function/,
  ],
  [
    'a variable beyond its section',
    xdp([{ ...WIDE[0]!, imm: 8 }, WIDE[1]!, EXIT], relocate(1, 'data')),
    /address of byte 8 of section ".data".*it has 8/,
  ],
  [
    'a call into a function',
    xdp([{ ...LOCAL_CALL, imm: 0 }, EXIT]),
    /reference to instruction 1 of section "xdp": no function begins there/,
  ],
  ['half an immediate', xdp([EXIT, WIDE[0]!]), /instruction 1: a 64-bit immediate without its second half/],
  ['an unknown code', xdp([{ code: 0xff }, EXIT]), /section "xdp", program "main": instruction 0 /],
  ['a jump outside', xdp([{ code: 0x05, off: 5 }, EXIT]), /program "main": instruction 0 .*the jump leads to 6/],
  [
    'maps without BTF',
    { sections: [plain, { name: '.maps', bytes: new Uint8Array(8) }] },
    /section ".maps": expected BTF.*clang -g/,
  ],
  [
    'short legacy maps',
    {
      sections: [plain, { name: 'maps', bytes: new Uint8Array(16) }],
      symbols: [{ name: 'm', section: 'maps', type: OBJECT }],
    },
    /records of 20 bytes or more, got 16 bytes for 1 maps/,
  ],
  [
    'BTF of another byte order',
    { sections: [plain, { name: '.BTF', bytes: Uint8Array.of(0xeb, 0x9f, ...new Array(22).fill(0)) }] },
    /section ".BTF", offset 0x0: BTF_HEADER.magic/,
  ],
  [
    'no name of a symbol',
    xdp([LOCAL_CALL, EXIT], { relocations: [{ section: 'xdp', offset: 0, type: 10, symbol: '?' }] }),
    /relocation R_BPF_64_32|no function begins there|not defined/,
  ],
] as const satisfies readonly (readonly [string, TestObject | Uint8Array, RegExp])[]) {
  test(`an object with ${what}: refused, with what and where`, () => {
    refused(object as TestObject | Uint8Array, expected);
  });
}

/** BTF with a type, and .BTF.ext that has one CO-RE record about instruction 0. */
function withCore(kind: number, access: string, insn: Parameters<typeof codeSection>[1][number], over = 1): TestObject {
  const w = new BtfWriter();
  const int = w.int('int', 4, 1);
  const shape = w.struct(BTF_KIND.STRUCT, 's', 16, [
    ['a', int, 0],
    ['list', w.array(int, 3), 32],
  ]);
  // Names of sections and accesses are texts of BTF: a type of that name puts them there.
  const at = (text: string): number => {
    const probe = new TextDecoder('latin1').decode(w.bytes());
    return probe.indexOf(`\0${text}\0`) + 1 - probe.indexOf('\0int\0');
  };
  w.type(BTF_KIND.TYPEDEF, 'xdp', int);
  w.type(BTF_KIND.TYPEDEF, access, int);
  const records = concat([words(16), words(at('xdp'), 1), words(0, over === 1 ? shape : over, at(access), kind)]);
  const header = concat([
    BtfExtHeader.encode({
      ...{ flags: 0, headerBytes: BtfExtHeader.size + BtfExtCore.size, functionOffset: 0, functionBytes: 0 },
      ...{ lineOffset: 0, lineBytes: 0 },
    }),
    BtfExtCore.encode({ coreOffset: 0, coreBytes: records.length }),
  ]);
  return {
    sections: [
      codeSection('xdp', [insn, EXIT]),
      { name: '.BTF', bytes: w.bytes(), flags: 0 },
      { name: '.BTF.ext', bytes: concat([header, records]), flags: 0 },
    ],
  };
}

test('CO-RE records: put into loads, stores and numbers', () => {
  const insn = (kind: number, access: string, code: number) =>
    load(withCore(kind, access, { code })).program().insns[0]!;
  assert.equal(insn(0, '0:1:2', 0x61).off, 12);
  assert.equal(insn(0, '2:0', 0xb7).imm, 32);
  assert.equal(insn(1, '0:1', 0xb7).imm, 12);
  assert.equal(insn(3, '0:0', 0xb7).imm, 1);
  assert.equal(insn(5, '0:0', 0xb7).imm, 32);
});

for (const [what, kind, access, code, expected] of [
  ['no such member', 0, '0:7', 0xb7, /instruction 0: CO-RE record: struct s has no member 7/],
  ['no such element', 0, '0:1:3', 0xb7, /int\[3\] has no element 3/],
  ['a member of a number', 0, '0:0:0', 0xb7, /int has no member 0/],
  ['a value of no enum', 11, '0', 0xb7, /struct s has no value 0/],
  ['an unknown kind', 40, '0', 0xb7, /expected a kind of 0 to 12, got 40/],
  ['an access that is none', 0, 'x', 0xb7, /expected numbers between colons, got "x"/],
  ['an exit', 0, '0:0', 0x95, /CO-RE record FIELD_BYTE_OFFSET: expected a load, a store or a number/],
  ['an offset too large', 0, '9999:0', 0x61, /159984 does not fit the instruction/],
] as const) {
  test(`a CO-RE record about ${what}: refused`, () => {
    refused(withCore(kind, access, { code }), expected);
  });
}

test('a CO-RE record about a type that is not there: refused', () => {
  refused(withCore(0, '0', { code: 0xb7 }, 99), /type 99: there are/);
});

test('the bytes of the file are not kept, in a Buffer neither', () => {
  const bytes = Buffer.from(makeObject({ sections: [plain, { name: '.data', bytes: Uint8Array.of(1, 2, 3, 4) }] }));
  const object = loadObject(bytes);
  bytes.fill(0xff);
  assert.deepEqual([...object.maps[0]!.data!], [1, 2, 3, 4]);
  assert.equal(object.programs.length, 1);
});

test('an object without symbols: functions by function info', () => {
  const make = (kind: number) => {
    const w = new BtfWriter();
    const proto = w.type(BTF_KIND.FUNC_PROTO, '', 0);
    const ids = ['first', 'second'].map((name) => w.type(kind, name, proto));
    w.type(BTF_KIND.TYPEDEF, 'xdp', proto);
    const strings = new TextDecoder('latin1').decode(w.bytes());
    const section = strings.indexOf('\0xdp\0') - strings.indexOf('\0first\0') + 1;
    const records = concat([words(8), words(section, 2), words(0, ids[0]!), words(16, ids[1]!)]);
    const header = BtfExtHeader.encode({
      ...{ flags: 0, headerBytes: BtfExtHeader.size, functionOffset: 0, functionBytes: records.length },
      ...{ lineOffset: 0, lineBytes: 0 },
    });
    return {
      sections: [
        codeSection('xdp', [ZERO, EXIT, { ...ZERO, imm: 1 }, EXIT]),
        { name: '.BTF', bytes: w.bytes(), flags: 0 },
        { name: '.BTF.ext', bytes: concat([header, records]), flags: 0 },
      ],
    };
  };
  const { programs } = load(make(BTF_KIND.FUNC));
  assert.deepEqual(
    programs.map(({ name, insns }) => [name, insns.length, insns[0]!.imm]),
    [
      ['first', 2, 0],
      ['second', 2, 1],
    ],
  );
  refused(make(BTF_KIND.TYPEDEF), /function info: type 2: expected a function/);
});
