// A thread that sleeps in poll(2) on a descriptor of another thread, for tests: says so, and ends when it has slept.
import { parentPort, workerData } from 'node:worker_threads';
import { PollSet } from '../../memory/os/poll.js';

const { fd, ms } = workerData as { fd: number; ms: number };
const polls = new PollSet(1);
polls.add(fd);
parentPort!.postMessage('sleeps');
polls.wait(ms);
polls.close();
