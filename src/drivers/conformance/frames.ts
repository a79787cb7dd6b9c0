// Frames of the conformance suite: recognizable, numbered, each with bytes of its own.
import { parseMac } from '../../wire/address-text.js';

export const ETHERNET_BYTES = 14;
/** Local experimental EtherType 1. */
const ETHER_TYPE = 0x88b5;
const MAGIC = 0x636f6e66;
export const SMALLEST = 60;
const BROADCAST = 'ff:ff:ff:ff:ff:ff';
const SOURCE = '02:00:00:00:c0:de';

const filler = (sequence: number, at: number) => (sequence * 37 + at * 11 + (at >>> 8)) & 255;

/** A frame of `bytes` bytes (without FCS). */
export function testFrame(bytes: number, sequence: number, destination = BROADCAST): Uint8Array {
  const frame = new Uint8Array(bytes);
  frame.set(parseMac(destination)!);
  frame.set(parseMac(SOURCE)!, 6);
  const view = new DataView(frame.buffer);
  view.setUint16(12, ETHER_TYPE);
  view.setUint32(14, MAGIC);
  view.setUint32(18, sequence);
  for (let at = 22; at < bytes; at++) frame[at] = filler(sequence, at);
  return frame;
}

/** A suite's frame: its number, and whether every byte is as it was made. Undefined for any other frame. */
export function parseFrame(frame: Uint8Array): { sequence: number; intact: boolean } | undefined {
  if (frame.length < 22) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  if (view.getUint16(12) !== ETHER_TYPE || view.getUint32(14) !== MAGIC) return undefined;
  const sequence = view.getUint32(18);
  let intact = true;
  for (let at = 22; at < frame.length; at++) intact &&= frame[at] === filler(sequence, at);
  return { sequence, intact };
}

/** Numbers of frames, in their order. */
export const sequences = (frames: readonly Uint8Array[]): number[] =>
  frames.map((frame) => parseFrame(frame)?.sequence ?? -1);
