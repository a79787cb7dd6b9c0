// Frames as a raw guest sends and receives them.
import assert from 'node:assert/strict';
import { concat, hexBytes, type RawGuest, word, words } from './raw-guest-testing.js';

/** An Ethernet frame of a type that nobody looks into. */
export function frame(to: Uint8Array, from: Uint8Array, bytes: number, fill = 0x5a): Uint8Array {
  return concat(to, from, hexBytes('88b5'), new Uint8Array(bytes - 14).fill(fill));
}

/** An RNDIS packet message with its infos right behind the header. */
export function packet(data: Uint8Array, infos: Uint8Array = words()): Uint8Array {
  const total = 44 + infos.length + data.length;
  return concat(
    words(1, total, 36 + infos.length, data.length, 0, 0, 0, infos.length ? 36 : 0, infos.length, 0, 0),
    infos,
    data,
  );
}

export const info = (type: number, value: number) => words(16, type, 12, value);

export interface Received {
  readonly data: Uint8Array;
  readonly infos: Record<number, number>;
}

/** Takes what came, gives it back to the host, and returns the frames. Checks the layout of facts 8. */
export function receive(guest: RawGuest, mtu = 1514): Received[] {
  const frames: Received[] = [];
  for (const { type, id, setId, ranges } of guest.all()) {
    assert.equal(type, 7);
    assert.equal(setId, 0xcafe);
    assert.equal(ranges[0]!.offset, Number(id) * (mtu + 292), 'the chain is named by its first suballocation');
    for (const { bytes, offset } of ranges) {
      assert.equal(bytes, mtu + 292);
      const at = guest.opened.receiveBuffer.address + offset;
      const message = guest.arena.u8.slice(at, at + bytes);
      const [kind, length, dataOffset, dataBytes, oob, , , infoOffset, infoBytes] = Array.from({ length: 9 }, (_, i) =>
        word(message, i),
      );
      assert.deepEqual([kind, length, dataOffset, oob, infoOffset], [1, bytes, 248, 0, 36]);
      const infos: Record<number, number> = {};
      for (let next = 44; next < 44 + infoBytes!; next += word(message.subarray(next), 0)) {
        infos[word(message.subarray(next), 1)] = word(message.subarray(next), 3);
      }
      frames.push({ data: message.slice(256, 256 + dataBytes!), infos });
    }
    guest.put(11, 0, id, words(108, 1));
  }
  return frames;
}
