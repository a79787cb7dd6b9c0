// Every byte layout of the project. Rooms may import the single files or this.
export * from './address-text.js';
export * from './checksum.js';
export * from './ethernet.js';
export * from './ip.js';
export * from './ndis.js';
export * from './nvsp.js';
export * from './oid.js';
export * from './pcap.js';
export * from './ppi.js';
export * from './rndis.js';
export * from './struct.js';
export * from './tables.js';
export * from './tcp-udp.js';
export * from './vmbus.js';
export * from './vmbus-control.js';
export * from './vmbus-packet.js';
