// Packets of the control path that the host owes a guest: they wait, in order, for room in the ring.
import type { Channel } from '../vmbus/channel.js';
import { PACKET_TYPE } from '../wire/vmbus.js';

interface Packet {
  readonly type: number;
  readonly idLow: number;
  readonly idHigh: number;
  readonly payload: Uint8Array;
}

export class Outbox {
  readonly #channel: Channel;
  readonly #waiting: Packet[] = [];

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  clear(): void {
    this.#waiting.length = 0;
  }

  push(type: number, idLow: number, idHigh: number, payload: Uint8Array): void {
    this.#waiting.push({ type, idLow, idHigh, payload });
    this.flush();
  }

  /** A completion; its message is padded with zeros to `bytes`, unless it is empty. */
  complete(idLow: number, idHigh: number, message: Uint8Array, bytes: number): void {
    let payload = message;
    if (message.length > 0 && message.length < bytes) {
      payload = new Uint8Array(bytes);
      payload.set(message);
    }
    this.push(PACKET_TYPE.COMPLETION, idLow, idHigh, payload);
  }

  /** Writes what finds room. True when nothing waits any more. */
  flush(): boolean {
    while (this.#waiting.length > 0) {
      const { type, idLow, idHigh, payload } = this.#waiting[0]!;
      if (!this.#channel.send(type, 0, idLow, idHigh, payload)) return false;
      this.#waiting.shift();
    }
    return true;
  }
}
