// What datapath.ts declares from `copy` on.
export { checksum, checksumFinish, checksumVerify } from './checksum';
export { copy } from './copy';
