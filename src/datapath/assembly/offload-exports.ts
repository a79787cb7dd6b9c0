// What datapath.ts declares from `copy` on.
export { checksum, checksumFinish, checksumVerify } from './checksum';
export { copy } from './copy';
export { frameGather } from './frame';
export { packetReceive, packetWaiting } from './packet-ring';
export { segment } from './segment';
export { toeplitz } from './toeplitz';
export { frameToVnet, mbufToVnet, vnetReceive, vnetToFrame, vnetToMbuf } from './vnet';
export { vnetScatter, vnetTransmit } from './vnet-burst';
