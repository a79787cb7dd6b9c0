// What datapath.ts declares from `copy` on.
export { checksum, checksumFinish, checksumVerify } from './checksum';
export { copy } from './copy';
export { frameGather } from './frame';
export { segment } from './segment';
export { toeplitz } from './toeplitz';
export { frameToVnet, mbufToVnet, vnetToFrame, vnetToMbuf } from './vnet';
