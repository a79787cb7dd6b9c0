// A process with one port, for tests that look at it from outside: DEVICE,ARGUMENTS. Says "ready" once the port runs; otherwise the
// error, and ends with 1.
import { initEal } from '../../src/drivers/platform.js';

try {
  const eal = await initEal(['-m', '8', '--vdev', process.argv[2]!]);
  const [port] = eal.ports;
  const pool = eal.createMempool('process', { count: 512 });
  await port!.configure({ rxQueues: 1, txQueues: 1 });
  port!.setupRxQueue(0, { descriptors: 0, pool });
  port!.setupTxQueue(0);
  await port!.start();
  await port!.setPromiscuous(true);
  process.stdout.write('ready\n');
  setInterval(() => {}, 1000);
} catch (error) {
  process.stdout.write(`${(error as Error).message}\n`);
  process.exit(1);
}
