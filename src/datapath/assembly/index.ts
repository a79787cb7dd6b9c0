// The compiled data path: what src/datapath/datapath.ts declares.
export { forwardChecksum, forwardEcho, forwardMac, forwardMacSwap, forwardMake, forwardSwap5 } from './forward';
export { appendChain } from './chain';
export { groFlush, groReceive } from './gro';
export { guestAbandon, guestFlush, guestLent, guestPoll } from './guest-receive';
export { portReceive, portSend, portStage } from './guest-port';
export { guestSend } from './guest-send';
export { handlePut, handleTake } from './handle-ring';
export { hostCoalesce } from './coalesce';
export { hostComplete, hostPoll } from './host-poll';
export { hostDivide, hostReset, hostSend, hostSendControl } from './host-send';
export { hostStage } from './host-stage';
export * from './offload-exports';
export { externalDrop, mbufFree, poolGet, useLcore } from './pool';
export { endInit, ringMask, ringReadable, ringSend, ringUnmask } from './ring';
export { steer } from './steer';
export { sharedPut, sharedTake } from './shared-ring';
export { useScratch } from './scratch';
