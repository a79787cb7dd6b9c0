// netvsc down: ends the process of an interface, and waits until the interface is gone.
import { findControl } from '../../netdev/control-client.js';
import { networkOf } from '../../netdev/control-path.js';
import { existingNetwork } from './up.js';

const GONE_MS = 15_000;

/** Throws NetdevError: there is no such interface, or it does not end. */
export async function takeDown(name: string, network?: string): Promise<void> {
  const path = existingNetwork(network);
  const client = await findControl(name, path === undefined ? {} : { network: networkOf(path) });
  try {
    await client.request('down', undefined);
    await client.ended(GONE_MS);
  } finally {
    client.close();
  }
}
