// Tables of cells: what memory/layout.ts declares its structures with.

type CellType = 'u32' | 'u64';
type CellTable = Record<string, CellType>;

/** A structure in an arena: its size in bytes (a multiple of 64) and the byte offset of each cell. */
export interface Cells<T extends CellTable> {
  readonly name: string;
  readonly bytes: number;
  readonly at: { readonly [K in keyof T]: number };
  readonly types: T;
}

/** `align`: 64, a cache line, for what threads do not share. */
export function cells<T extends CellTable>(name: string, types: T, align = 64): Cells<T> {
  const at: Record<string, number> = {};
  let offset = 0;
  for (const [field, type] of Object.entries(types)) {
    if (type === 'u64') offset = (offset + 7) & ~7;
    at[field] = offset;
    offset += type === 'u64' ? 8 : 4;
  }
  return { name, bytes: Math.ceil(offset / align) * align, at: at as { readonly [K in keyof T]: number }, types };
}
