// CO-RE records, resolved to the object's own types: there is no kernel here whose types could differ.
import { BTF_INT_ENCODING, BTF_KIND, CORE_KIND } from '../../wire/btf.js';
import { nameOf } from '../../wire/struct.js';
import { CLASS, CODE, classOf, isRegisterForm } from '../isa/opcodes.js';
import type { Insn } from '../isa/program.js';
import type { Btf, BtfType } from './btf.js';
import type { CoreRecord } from './btf-ext.js';
import { ObjectError, quoted } from './errors.js';

/** What a record asks for, by the object's own types. Throws ObjectError without a place. */
export function coreValue(btf: Btf, record: CoreRecord): bigint {
  switch (record.kind) {
    case CORE_KIND.TYPE_ID_LOCAL:
    case CORE_KIND.TYPE_ID_TARGET:
      return BigInt(record.type);
    case CORE_KIND.TYPE_EXISTS:
    case CORE_KIND.TYPE_MATCHES:
      return 1n;
    case CORE_KIND.TYPE_SIZE:
      return BigInt(btf.size(record.type));
    case CORE_KIND.ENUMVAL_EXISTS:
    case CORE_KIND.ENUMVAL_VALUE: {
      const value = enumValue(btf, record);
      return record.kind === CORE_KIND.ENUMVAL_EXISTS ? 1n : value;
    }
    default:
      return fieldValue(btf, record);
  }
}

function enumValue(btf: Btf, { type: id, access }: CoreRecord): bigint {
  const type = btf.plain(id);
  const value = 'values' in type ? type.values[access[0]!] : undefined;
  if (!value || access.length !== 1) {
    throw new ObjectError(`CO-RE record: ${btf.describe(id)} has no value ${access.join(':')}`);
  }
  return value.value;
}

interface Field {
  readonly type: BtfType;
  readonly bits: number;
  readonly bitOffset: number;
  /** 0 = not a bit field. */
  readonly bitSize: number;
}

/** Follows the indices of an access. */
function field(btf: Btf, { type: start, access }: CoreRecord): Field {
  let id = start;
  let bitOffset = access[0]! * btf.size(id) * 8;
  let bitSize = 0;
  for (const index of access.slice(1)) {
    const type = btf.plain(id);
    if (bitSize !== 0) throw new ObjectError(`CO-RE record: ${access.join(':')} goes into a bit field`);
    if ('members' in type) {
      const member = type.members[index];
      if (!member) throw new ObjectError(`CO-RE record: ${btf.describe(id)} has no member ${index}`);
      bitOffset += member.bitOffset;
      bitSize = member.bitSize;
      id = member.type;
    } else if (type.kind === BTF_KIND.ARRAY) {
      // Without a count, or with 1, as the last member of a struct: as long as it needs to be.
      if (type.count > 1 && index >= type.count) {
        throw new ObjectError(`CO-RE record: ${btf.describe(id)} has no element ${index}`);
      }
      bitOffset += index * btf.size(type.element) * 8;
      id = type.element;
    } else throw new ObjectError(`CO-RE record: ${btf.describe(id)} has no member ${index}`);
  }
  return { type: btf.plain(id), bits: btf.size(id) * 8, bitOffset, bitSize };
}

function fieldValue(btf: Btf, record: CoreRecord): bigint {
  const { type, bits, bitOffset, bitSize } = field(btf, record);
  // The smallest aligned load that has the whole of a bit field.
  let loadBits = bits;
  let loadAt = Math.floor(bitOffset / 8) * 8;
  if (bitSize !== 0) {
    if (loadBits === 0) throw new ObjectError('CO-RE record: a bit field of a type without size');
    loadAt = Math.floor(bitOffset / loadBits) * loadBits;
    while (bitOffset + bitSize > loadAt + loadBits) {
      loadBits *= 2;
      if (loadBits > 64) throw new ObjectError('CO-RE record: a bit field that no load of 64 bits holds');
      loadAt = Math.floor(bitOffset / loadBits) * loadBits;
    }
  }
  switch (record.kind) {
    case CORE_KIND.FIELD_BYTE_OFFSET:
      return BigInt(loadAt / 8);
    case CORE_KIND.FIELD_BYTE_SIZE:
      return BigInt(loadBits / 8);
    case CORE_KIND.FIELD_EXISTS:
      return 1n;
    case CORE_KIND.FIELD_SIGNED: {
      const signed =
        (type.kind === BTF_KIND.INT && (type.encoding & BTF_INT_ENCODING.SIGNED) !== 0) ||
        ('signed' in type && type.signed);
      return signed ? 1n : 0n;
    }
    case CORE_KIND.FIELD_LSHIFT_U64:
      return BigInt(64 - (bitOffset + (bitSize || bits) - loadAt));
    case CORE_KIND.FIELD_RSHIFT_U64:
      return BigInt(64 - (bitSize || bits));
    default:
      throw new ObjectError(`CO-RE record: expected a kind of 0 to 12, got ${record.kind}`);
  }
}

const FITS = { off: 0x7fff, imm: 0x7fffffff } as const;

/** The instruction (one slot or two, from `slot`) with the value in it. Throws ObjectError without a place. */
export function patchCore(insns: Insn[], slot: number, record: CoreRecord, value: bigint): void {
  const insn = insns[slot];
  const what = `CO-RE record ${nameOf(CORE_KIND, record.kind)}`;
  if (!insn) throw new ObjectError(`${what}: no instruction there`);
  const second = insns[slot + 1];
  const number = Number(value);
  const fit = (most: number): number => {
    if (number < -most - 1 || number > most) throw new ObjectError(`${what}: ${value} does not fit the instruction`);
    return number;
  };
  const kind = classOf(insn.code);
  if (insn.code === CODE.LDDW && second) {
    insns[slot] = { ...insn, imm: Number(BigInt.asIntN(32, value)) };
    insns[slot + 1] = { ...second, imm: Number(BigInt.asIntN(32, value >> 32n)) };
  } else if (kind === CLASS.LDX || kind === CLASS.ST || kind === CLASS.STX) {
    insns[slot] = { ...insn, off: fit(FITS.off) };
  } else if ((kind === CLASS.ALU || kind === CLASS.ALU64) && !isRegisterForm(insn.code)) {
    insns[slot] = { ...insn, imm: fit(FITS.imm) };
  } else throw new ObjectError(`${what}: expected a load, a store or a number, got code ${quoted(hex(insn.code))}`);
}

const hex = (code: number): string => `0x${code.toString(16)}`;
