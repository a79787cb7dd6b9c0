// BTF types as the rest of the loader sees them.
import { BTF_KIND } from '../../wire/btf.js';

interface Base {
  readonly id: number;
  /** Empty where there is none. */
  readonly name: string;
}

export interface BtfVoid extends Base {
  readonly kind: typeof BTF_KIND.VOID;
}

export interface BtfInteger extends Base {
  readonly kind: typeof BTF_KIND.INT;
  /** Bytes that it takes. */
  readonly size: number;
  readonly bits: number;
  /** Of the first of them, from the lowest of the bytes. */
  readonly bitOffset: number;
  /** BTF_INT_ENCODING. */
  readonly encoding: number;
}

export interface BtfFloat extends Base {
  readonly kind: typeof BTF_KIND.FLOAT;
  readonly size: number;
}

/** A type that is made from one other. */
export interface BtfReference extends Base {
  readonly kind:
    | typeof BTF_KIND.PTR
    | typeof BTF_KIND.TYPEDEF
    | typeof BTF_KIND.VOLATILE
    | typeof BTF_KIND.CONST
    | typeof BTF_KIND.RESTRICT
    | typeof BTF_KIND.TYPE_TAG
    | typeof BTF_KIND.DECL_TAG
    | typeof BTF_KIND.FUNC;
  readonly type: number;
}

export interface BtfArrayType extends Base {
  readonly kind: typeof BTF_KIND.ARRAY;
  readonly element: number;
  readonly index: number;
  readonly count: number;
}

export interface BtfMemberType {
  /** Empty: its own members are members of what it is in. */
  readonly name: string;
  readonly type: number;
  readonly bitOffset: number;
  /** 0 = not a bit field. */
  readonly bitSize: number;
}

export interface BtfStruct extends Base {
  readonly kind: typeof BTF_KIND.STRUCT | typeof BTF_KIND.UNION;
  readonly size: number;
  readonly members: readonly BtfMemberType[];
}

export interface BtfEnumeration extends Base {
  readonly kind: typeof BTF_KIND.ENUM | typeof BTF_KIND.ENUM64;
  readonly size: number;
  readonly signed: boolean;
  readonly values: readonly { readonly name: string; readonly value: bigint }[];
}

export interface BtfForward extends Base {
  readonly kind: typeof BTF_KIND.FWD;
}

export interface BtfPrototype extends Base {
  readonly kind: typeof BTF_KIND.FUNC_PROTO;
  readonly result: number;
  readonly parameters: readonly { readonly name: string; readonly type: number }[];
}

export interface BtfVariableType extends Base {
  readonly kind: typeof BTF_KIND.VAR;
  readonly type: number;
  /** BTF_LINKAGE. */
  readonly linkage: number;
}

export interface BtfSectionType extends Base {
  readonly kind: typeof BTF_KIND.DATASEC;
  readonly size: number;
  /** Offsets as the file has them: those of global variables are 0 until the object's symbols are asked. */
  readonly variables: readonly { readonly type: number; readonly offset: number; readonly size: number }[];
}

export type BtfType =
  | BtfVoid
  | BtfInteger
  | BtfFloat
  | BtfReference
  | BtfArrayType
  | BtfStruct
  | BtfEnumeration
  | BtfForward
  | BtfPrototype
  | BtfVariableType
  | BtfSectionType;

/** Kinds that say something about a type but do not change what its bytes mean. */
export function isModifier(type: BtfType): type is BtfReference {
  return (
    type.kind === BTF_KIND.TYPEDEF ||
    type.kind === BTF_KIND.VOLATILE ||
    type.kind === BTF_KIND.CONST ||
    type.kind === BTF_KIND.RESTRICT ||
    type.kind === BTF_KIND.TYPE_TAG
  );
}
