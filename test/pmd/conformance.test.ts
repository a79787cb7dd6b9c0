// net_netvsc: what the conformance suite asks of every driver. The other end of the wire is another netvsc port of the program.
import { conformance, PortWire } from '../../src/drivers/conformance.js';
import { initEal } from '../../src/drivers/platform.js';
import { nicUuid } from '../../src/host/identity.js';
import { hostThread, portOf } from './rig.js';

/** An environment on a host of its own, which ends with it. */
async function environment(...words: string[]) {
  const host = await hostThread();
  const blocked = words.includes('nothing') ? [0, 1].flatMap((nic) => ['-b', nicUuid(host.machine, nic)]) : [];
  const options = ['--machine', host.machine, ...words.filter((word) => word !== 'nothing'), ...blocked];
  try {
    const eal = await initEal(options, { log: () => {} });
    const close = eal.close.bind(eal);
    eal.close = async () => {
      await close();
      await host.end();
    };
    return { host, eal };
  } catch (error) {
    await host.end();
    throw error;
  }
}

conformance({
  name: 'net_netvsc',
  skips: { 'the link can be set': "a NIC's link is its host's" },
  async open(words) {
    const { host, eal } = await environment(...words);
    return { eal, port: portOf(eal, host, 0), wire: new PortWire(eal, portOf(eal, host, 1)), close: () => eal.close() };
  },
  async empty(words) {
    return (await environment(...words, 'nothing')).eal;
  },
});
