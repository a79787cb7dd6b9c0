// net_af_packet: what the conformance suite asks of every driver, and what is its own.
import { noNetworkReason, TestNetwork } from '../../memory/os/packet-peer-testing.js';
import { conformance } from '../conformance.js';
import { KernelWire } from '../interface-testing.js';
import { initEal } from '../platform.js';

const skip = noNetworkReason();

conformance({
  name: 'net_af_packet',
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
      network.veth('p0', 'w0');
      const port = await network.in(() => eal.addVdev('net_af_packet0', 'iface=p0,qpairs=4'));
      wire = network.in(() => new KernelWire('w0', (mtu) => network.run(`ip link set w0 mtu ${mtu}`)));
      return { eal, port, wire, close };
    } catch (error) {
      await close();
      throw error;
    }
  },
});
