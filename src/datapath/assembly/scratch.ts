// This instance's private working memory. Globals are per instance, memory is not: two threads over one memory must not
// share it.
import * as L from './generated';

export let scratch: u32 = L.DEFAULT_SCRATCH;

export function useScratch(address: u32): void {
  scratch = address;
}
