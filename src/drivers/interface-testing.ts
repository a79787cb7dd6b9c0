// For tests of drivers on interfaces of the kernel: the kernel's side of such an interface as the wire.
import { setTimeout as sleep } from 'node:timers/promises';
import { PacketPeer } from '../memory/os/packet-peer-testing.js';
import type { Wire } from './conformance.js';

const PATIENCE_MS = 3000;

export class KernelWire implements Wire {
  readonly when = 'started';
  readonly #peer: PacketPeer;
  readonly #setMtu: (mtu: number) => void;

  /** In the namespace of the interface. */
  constructor(name: string, setMtu: (mtu: number) => void = () => {}) {
    this.#peer = new PacketPeer(name);
    this.#setMtu = setMtu;
  }

  async setMtu(mtu: number): Promise<void> {
    this.#setMtu(mtu);
  }

  async feed(frames: readonly Uint8Array[]): Promise<void> {
    const end = performance.now() + PATIENCE_MS;
    for (const frame of frames) {
      while (!this.#peer.send(frame)) {
        if (performance.now() > end) throw new Error('wire: the interface takes no packets');
        await sleep(1);
      }
    }
  }

  async sent(count: number): Promise<Uint8Array[]> {
    const frames = this.#peer.receive();
    const end = performance.now() + PATIENCE_MS;
    while (frames.length < count && performance.now() < end) {
      await sleep(1);
      frames.push(...this.#peer.receive());
    }
    return frames;
  }

  close(): void {
    this.#peer.close();
  }
}
