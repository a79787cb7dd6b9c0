// NVSP: numbers, messages, and the codec that finds a message by its number.
export * from './nvsp-decode.js';
export * from './nvsp-messages.js';
export * from './nvsp-types.js';
