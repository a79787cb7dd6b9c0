// Objects whose ELF frame holds while what is in the sections does not: how far hostile bytes come.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { packageRoot } from '../../src/apps/package-info.js';
import { seededRandom } from '../../src/vmbus/memory/simulator.js';
import { BTF_INFO, BTF_KIND, BtfHeader, BtfType } from '../../src/wire/btf.js';
import { ELF_SYMBOL_TYPE } from '../../src/wire/elf.js';
import { CODE } from '../../src/xdp/isa/opcodes.js';
import { parseElf } from '../../src/xdp/object/elf.js';
import { ObjectError } from '../../src/xdp/object/errors.js';
import { loadObject } from '../../src/xdp/object/object.js';
import { CODE_FLAGS, codeSection, concat, makeObject } from '../../src/xdp/object/object-testing.js';
import { runXdpObject } from '../fuzz/xdp-object-target.js';

const CORPUS = path.join(packageRoot(), 'test/fuzz/corpus');
const files = readdirSync(CORPUS).filter((file) => file.startsWith('xdpobject-'));
const PARTS = ['.BTF', '.BTF.ext', '.maps', '.symtab', '.strtab', '.relxdp', '.rel.maps', '.rel.text', 'xdp', '.text'];
const RUNS = 200;
const INTERESTING = [0, 1, 2, 3, 7, 8, 0x10, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff];

/** Changes a few words of a section, in place. */
function change(file: Uint8Array, from: number, length: number, random: () => number): void {
  const below = (limit: number) => Math.floor(random() * limit);
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  for (let i = 0; i <= below(3); i++) {
    const at = from + (below(length) & ~3);
    if (at + 4 > from + length) continue;
    const old = view.getUint32(at, true);
    const kind = random();
    if (kind < 0.4) view.setUint32(at, INTERESTING[below(INTERESTING.length)]!, true);
    else if (kind < 0.7) view.setUint32(at, (old + below(17) - 8) >>> 0, true);
    // Another place of the same section: valid references to the wrong thing.
    else if (kind < 0.9) view.setUint32(at, view.getUint32(from + (below(length - 3) & ~3), true), true);
    else view.setUint8(at + below(4), below(256));
  }
}

for (const part of PARTS) {
  test(`hostile bytes in ${part}: an error with a name, or an object that holds`, (t) => {
    const random = seededRandom(PARTS.indexOf(part) + 1);
    const outcomes = new Map<string, number>();
    let runs = 0;
    for (const name of files) {
      const file = new Uint8Array(readFileSync(path.join(CORPUS, name)));
      const section = parseElf(file).sections.find((one) => one.name === part && one.bytes.length > 4);
      if (!section) continue;
      const from = Buffer.from(file).indexOf(section.bytes);
      assert.ok(from > 0);
      for (let run = 0; run < RUNS; run++, runs++) {
        const input = file.slice();
        change(input, from, section.bytes.length, random);
        let outcome = 'ok';
        try {
          runXdpObject(input);
        } catch (error) {
          assert.ok(error instanceof ObjectError, `${name}, run ${run}: ${(error as Error).stack}`);
          outcome = error.message.replace(/0x[0-9a-f]+|\d+|".*"/g, '#');
        }
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      }
    }
    t.diagnostic(`${runs} runs, ${outcomes.size} outcomes, ${outcomes.get('ok') ?? 0} accepted`);
    assert.ok(runs >= RUNS, 'no object of the corpus has that section');
    assert.ok(outcomes.size > 1, [...outcomes.keys()].join('\n'));
  });
}

test('objects that would take much more memory or time than they have bytes: refused, or soon done', () => {
  const refused = (bytes: Uint8Array, expected: RegExp) =>
    assert.throws(
      () => loadObject(bytes),
      (error) => error instanceof ObjectError && expected.test(error.message),
    );
  // Long strings, and a type with a name at each of their bytes: 50 MB of names in 1.7 MB.
  const strings = Buffer.from('\0'.padEnd(1001, 'n').repeat(100));
  const count = strings.length - 2000;
  const types = new Uint8Array(count * 16);
  const one = BtfType.encode({ name: 0, info: BTF_KIND.INT << BTF_INFO.KIND_SHIFT, sizeOrType: 4 });
  for (let i = 0; i < count; i++) {
    types.set(one, i * 16);
    new DataView(types.buffer).setUint32(i * 16, i, true);
    types[i * 16 + 12] = 32;
  }
  const header = BtfHeader.encode({
    ...{ flags: 0, headerBytes: BtfHeader.size, typeOffset: 0, typeBytes: types.length },
    ...{ stringOffset: types.length, stringBytes: strings.length },
  });
  const btf = concat([header, types, strings]);
  refused(makeObject({ sections: [{ name: '.BTF', bytes: btf, flags: 0 }] }), /characters of names/);
  // Many sections that are the same bytes of the file.
  const code = codeSection(
    'xdp',
    Array.from({ length: 2000 }, () => ({ code: CODE.EXIT })),
  );
  const sections = Array.from({ length: 200 }, (_, i) => ({ name: `xdp${i}`, flags: CODE_FLAGS, size: 16_000 }));
  const bytes = makeObject({ sections: [code, ...sections.map((same) => ({ ...same, bytes: new Uint8Array(0) }))] });
  refused(bytes, /sections that do not overlap|bytes from offset/);
  // A chain of functions, each of which calls the next: every program has the rest of them.
  const links = 3000;
  const chain = Array.from({ length: links }, (_, i) => [
    i + 1 < links ? { code: CODE.CALL, src: 1, imm: 1 } : { code: 0xb7 },
    { code: CODE.EXIT },
  ]).flat();
  const symbols = Array.from({ length: links }, (_, i) => ({
    ...{ name: `f${i}`, section: 'xdp', value: i * 16, size: 16, type: ELF_SYMBOL_TYPE.FUNC },
  }));
  refused(
    makeObject({ sections: [codeSection('xdp', chain)], symbols }),
    /at most 2000000 instructions in all programs/,
  );
});
