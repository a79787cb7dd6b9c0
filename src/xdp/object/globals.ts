// Global variables of an object: values of one-entry maps, named by BTF.
import { BTF_KIND } from '../../wire/btf.js';
import type { Btf } from './btf.js';
import { type JsonValue, jsonToValue, valueToJson } from './btf-json.js';
import type { ElfObject } from './elf.js';
import { ObjectError, quoted } from './errors.js';
import { type BpfMap, variableOffset } from './maps.js';

export interface GlobalVariable {
  readonly name: string;
  readonly section: string;
  /** Index of the map that has it. */
  readonly map: number;
  /** Bytes, in the map's value. */
  readonly offset: number;
  readonly size: number;
  /** BTF id. */
  readonly type: number;
  /** Never changes once the object is used (`const volatile`). */
  readonly constant: boolean;
}

/** Variables of all maps that have `data`. Throws ObjectError. */
export function globalsOf(elf: ElfObject, maps: readonly BpfMap[], btf: Btf | undefined): GlobalVariable[] {
  const found: GlobalVariable[] = [];
  for (const map of maps) {
    const type = btf?.section(map.section);
    const section = elf.sections.find(({ name }) => name === map.section);
    if (!map.data || !btf || !type || !section) continue;
    for (const { type: id, offset: given, size } of type.variables) {
      const variable = btf.type(id);
      const place = { section: map.section, offset: given };
      if (variable.kind !== BTF_KIND.VAR) throw new ObjectError(`type ${id}: expected a variable`, place);
      const offset = variableOffset(elf, section, variable, given);
      if (offset + size > map.valueSize) {
        const what = `variable ${quoted(variable.name)}: ${size} bytes there: there are ${map.valueSize}`;
        throw new ObjectError(what, { ...place, offset });
      }
      found.push({
        ...{ name: variable.name, section: map.section, map: map.index, offset, size, type: variable.type },
        constant: map.constant,
      });
    }
  }
  return found;
}

/** The value that a variable has before programs run. Throws ObjectError. */
export function globalToJson(btf: Btf, map: BpfMap, { type, offset, size }: GlobalVariable): JsonValue {
  return valueToJson(btf, type, map.data!.subarray(offset, offset + size));
}

/** Changes it; members that `value` leaves out keep what they have. Throws ObjectError, and then nothing is changed. */
export function setGlobal(btf: Btf, map: BpfMap, { name, type, offset, size }: GlobalVariable, value: JsonValue): void {
  const bytes = map.data!.subarray(offset, offset + size);
  bytes.set(jsonToValue(btf, type, value, { base: bytes, name }));
}
