// net_tap: what the conformance suite asks of every driver, and what is its own.
import { noNetworkReason, TestNetwork } from '../../memory/os/packet-peer-testing.js';
import { conformance } from '../conformance.js';
import { KernelWire } from '../interface-testing.js';
import { initEal } from '../platform.js';

const skip = noNetworkReason();

conformance({
  name: 'net_tap',
  skip,
  async open(words) {
    const network = new TestNetwork();
    const eal = await initEal(words);
    let wire: KernelWire | undefined;
    const close = async () => {
      await eal.close();
      wire?.close();
      network.close();
    };
    try {
      const port = await network.in(() => eal.addVdev('net_tap0', 'iface=tap0'));
      wire = network.in(() => new KernelWire('tap0'));
      return { eal, port, wire, close };
    } catch (error) {
      await close();
      throw error;
    }
  },
});
