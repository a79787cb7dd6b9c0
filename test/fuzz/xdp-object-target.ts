// BPF objects: an ObjectError, or an object that keeps what its types promise.
import assert from 'node:assert/strict';
import { CODE } from '../../src/xdp/isa/opcodes.js';
import { type BpfProgram, IMM64 } from '../../src/xdp/isa/program.js';
import { jsonToValue } from '../../src/xdp/object/btf-json.js';
import { OBJECT_LIMITS } from '../../src/xdp/object/elf.js';
import { ObjectError } from '../../src/xdp/object/errors.js';
import { type BpfObject, loadObject } from '../../src/xdp/object/object.js';

const LONGEST_MESSAGE = 2000;

/** Throws ObjectError when the object is refused, anything else when a rule is broken. */
export function runXdpObject(input: Uint8Array): void {
  try {
    const object = loadObject(input, { types: { mine: 'xdp' } });
    for (const program of object.programs) checkReferences(object, program);
    for (const map of object.maps) {
      assert.ok(map.data === undefined || map.data.length === map.valueSize);
      assert.ok(map.data === undefined || map.data.length <= OBJECT_LIMITS.section);
      for (const entry of map.initial) {
        if ('map' in entry) assert.ok(entry.map < object.maps.length);
        else assert.ok(object.programs.some(({ name }) => name === entry.program));
      }
    }
    for (const variable of object.globals) {
      const { data } = object.maps[variable.map]!;
      assert.ok(variable.offset + variable.size <= data!.length);
      const base = data!.subarray(variable.offset, variable.offset + variable.size);
      const bytes = jsonToValue(object.btf!, variable.type, object.globalValue(variable), { base });
      assert.equal(bytes.length, variable.size);
    }
  } catch (error) {
    if (error instanceof ObjectError) assert.ok(error.message.length < LONGEST_MESSAGE, error.message);
    throw error;
  }
}

function checkReferences(object: BpfObject, { insns, lines, subprograms }: BpfProgram): void {
  assert.equal(lines.length, insns.length);
  const starts = new Set(subprograms.map(({ start }) => start));
  for (let slot = 0; slot < insns.length; slot++) {
    const { code, src, imm } = insns[slot]!;
    const refers = code === CODE.CALL ? src === 1 : code === CODE.LDDW && src === IMM64.CODE;
    if (refers) assert.ok(starts.has(slot + 1 + imm), `slot ${slot} leads to ${slot + 1 + imm}`);
    if (code !== CODE.LDDW) continue;
    slot++;
    if (src !== IMM64.MAP && src !== IMM64.MAP_VALUE) continue;
    const map = object.maps[imm];
    assert.ok(map, `slot ${slot - 1}: map ${imm}`);
    const at = insns[slot]!.imm;
    if (src === IMM64.MAP_VALUE) assert.ok(at >= 0 && at < map.valueSize, `slot ${slot - 1}: byte ${at}`);
  }
}
