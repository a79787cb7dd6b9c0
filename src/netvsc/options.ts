// Are a device's options such that it can be made with them?
import { NetvscError } from './requests.js';
import { MAX_QUEUES } from './scaling.js';
import { MAX_MTU, MIN_MTU, type NetvscOptions } from './types.js';

/** Throws NetvscError with the name of what is wrong; `where` names the device. */
export function checkOptions(where: string, options: NetvscOptions): void {
  const { mtu, requestTimeoutMs, sendTimeoutMs, copyLimit, queues, latency } = options;
  for (const name of ['receiveBufferBytes', 'sendBufferBytes'] as const) {
    const bytes = options[name];
    if (bytes === undefined || (Number.isInteger(bytes) && bytes > 0)) continue;
    throw new NetvscError(where, 'options', `${name}: expected a number of bytes, got ${bytes}`);
  }
  if (mtu !== undefined && !(Number.isInteger(mtu) && mtu >= MIN_MTU && mtu <= MAX_MTU)) {
    throw new NetvscError(where, 'options', `mtu: expected ${MIN_MTU}..${MAX_MTU}, got ${mtu}`);
  }
  if (requestTimeoutMs !== undefined && !(requestTimeoutMs > 0)) {
    throw new NetvscError(where, 'options', `requestTimeoutMs: expected more than 0, got ${requestTimeoutMs}`);
  }
  if (sendTimeoutMs !== undefined && !(sendTimeoutMs > 0)) {
    throw new NetvscError(where, 'options', `sendTimeoutMs: expected more than 0, got ${sendTimeoutMs}`);
  }
  if (queues !== undefined && !(Number.isInteger(queues) && queues >= 1 && queues <= MAX_QUEUES)) {
    throw new NetvscError(where, 'options', `queues: expected 1..${MAX_QUEUES}, got ${queues}`);
  }
  if (latency !== undefined && !(Number.isInteger(latency) && latency >= 0 && latency <= 0xffff)) {
    throw new NetvscError(where, 'options', `latency: expected 0..65535 units of 100 ns, got ${latency}`);
  }
  if (copyLimit !== undefined && !(Number.isInteger(copyLimit) && copyLimit >= 0)) {
    throw new NetvscError(where, 'options', `copyLimit: expected a number of bytes, got ${copyLimit}`);
  }
}
