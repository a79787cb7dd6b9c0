// `node process-memory-testing.js PID`: prints what reading a byte of that process returns to this user.
import { allocateOffHeap } from './libc.js';
import { readProcess } from './process-memory.js';

const { address, buffer } = allocateOffHeap(32);
new BigUint64Array(buffer).set([4096n, 1n]);
process.stdout.write(`${readProcess(Number(process.argv[2]), address, 1, address + 16, 1)}\n`);
