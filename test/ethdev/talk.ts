// Programs of the two stations: `listen` answers what comes by TCP and UDP, `send ADDRESS MB DATAGRAMS` talks to it. Both print
// one line of JSON.
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, createServer } from 'node:net';

const PORT = 5202;
const CHUNK = 1 << 16;
const WINDOW = 16;

/** Bytes that differ from place to place. */
function chunk(number: number): Buffer {
  const bytes = Buffer.alloc(CHUNK);
  for (let at = 0; at < CHUNK; at += 4) bytes.writeUInt32LE((number * CHUNK + at) ^ 0x5a5a, at);
  return bytes;
}

/** Length of datagram `n`. */
const lengthOf = (n: number) => 4 + ((n * 97) % 3000);

function listen(): void {
  const datagrams = createSocket({ type: 'udp6', ipv6Only: false });
  datagrams.on('message', (message, from) => {
    const n = message.readUInt32LE(0);
    const intact = message.length === lengthOf(n) && message.subarray(4).every((byte, i) => byte === ((n + i) & 255));
    datagrams.send(intact ? message.subarray(0, 4) : Buffer.alloc(4, 255), from.port, from.address);
  });
  const server = createServer((socket) => {
    const hash = createHash('sha256');
    let bytes = 0;
    socket.on('data', (data) => {
      hash.update(data);
      bytes += data.length;
    });
    socket.on('end', () => socket.end(JSON.stringify({ bytes, hash: hash.digest('hex') })));
  });
  server.listen(PORT, '::', () => datagrams.bind(PORT, '::', () => process.stdout.write('{"listens":true}\n')));
}

/** Sends by TCP; whether the other side got the same. */
function stream(address: string, megabytes: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(PORT, address);
    const hash = createHash('sha256');
    const count = (megabytes << 20) / CHUNK;
    let answer = '';
    let sent = 0;
    const push = () => {
      for (; sent < count; ) {
        const bytes = chunk(sent++);
        hash.update(bytes);
        if (!socket.write(bytes)) return;
      }
      socket.end();
    };
    socket.on('connect', push).on('drain', push).on('error', reject);
    socket.on('data', (data) => {
      answer += data.toString();
    });
    socket.on('close', () => {
      const { bytes, hash: theirs } = JSON.parse(answer) as { bytes: number; hash: string };
      resolve(bytes === count * CHUNK && theirs === hash.digest('hex'));
    });
  });
}

/** Sends datagrams, a few at a time; how many came back as they were, and how many damaged. */
function exchange(address: string, count: number): Promise<{ answered: number; damaged: number }> {
  return new Promise((resolve) => {
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
    let next = 0;
    let answered = 0;
    let damaged = 0;
    const send = () => {
      if (next === count) return;
      const n = next++;
      const message = Buffer.from(Array.from({ length: lengthOf(n) }, (_, i) => (n + i - 4) & 255));
      message.writeUInt32LE(n, 0);
      socket.send(message, PORT, address);
    };
    const end = () => {
      clearTimeout(timer);
      socket.close();
      resolve({ answered, damaged });
    };
    let timer = setTimeout(end, 3000);
    socket.on('message', (message) => {
      if (message.readUInt32LE(0) === 0xffff_ffff) damaged++;
      else answered++;
      clearTimeout(timer);
      timer = setTimeout(end, 3000);
      if (answered + damaged === count) end();
      else send();
    });
    for (let i = 0; i < WINDOW; i++) send();
  });
}

const [mode, address = '', megabytes = '0', datagrams = '0'] = process.argv.slice(2);
if (mode === 'listen') {
  // Not longer than the test, however that ends.
  const parent = process.ppid;
  setInterval(() => process.ppid === parent || process.exit(1), 1000);
  listen();
} else {
  const equal = await stream(address, Number(megabytes));
  const { answered, damaged } = await exchange(address, Number(datagrams));
  process.stdout.write(`${JSON.stringify({ equal, answered, damaged })}\n`);
}
