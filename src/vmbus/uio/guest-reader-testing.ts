// `node guest-reader-testing.js PID FOLDER`: prints what a host of this user is told when it copies from that process.
import { Arena } from '../../memory/arena.js';
import { linuxSystem } from '../../memory/os/mman.js';
import { acceptUnix, connectUnix, listenUnix } from '../../memory/os/socket.js';
import { GuestReader } from './guest-reader.js';

const [pid, folder] = process.argv.slice(2) as [string, string];
const arena = Arena.create({ bytes: 2 << 20, system: linuxSystem });
const listener = listenUnix(`${folder}/socket`);
connectUnix(`${folder}/socket`);
const reader = new GuestReader(arena, acceptUnix(listener), Number(pid));
const vectors = arena.reserve('vectors', 16);
arena.u64.set([4096n, 1n], vectors >>> 3);
process.stdout.write(`${reader.read(vectors, 1, arena.reserve('copy', 64), 1)}\n`);
