import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { PACKET_FLAG } from '../../memory/layout.js';
import { buildPacket, checksumField, type PacketSpec } from '../../offload/offload-testing.js';
import { pcapHeader, pcapRecord, readCapture } from '../../wire/pcap.js';
import { type FrameSpec, layFrames, macBytes, RecordingPort, testMemory } from '../frames-testing.js';
import { PORT_FILTER, UPLINK_FILTER } from '../ports.js';
import { VirtualSwitch } from '../vswitch.js';
import { type PcapOptions, PcapUplink } from './pcap.js';

const F = PACKET_FLAG;
const EPOCH = 1_700_000_000_000_000_000n;

function fixture(t: TestContext) {
  const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-pcap-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const { arena, datapath } = testMemory(24 << 20);
  const vswitch = new VirtualSwitch({ arena, datapath });
  const nic = new RecordingPort(arena, 1, 'nic', 0xf | PORT_FILTER.PROMISCUOUS);
  vswitch.addPort(nic);
  const send = (...specs: FrameSpec[]) => {
    const table = layFrames(arena, specs);
    vswitch.forward(table, specs.length);
    arena.release(table);
  };
  const plug = (options: Partial<PcapOptions>) => {
    const uplink = new PcapUplink({ arena, datapath, sink: vswitch, number: 2, epochNs: EPOCH, ...options });
    vswitch.addPort(uplink);
    t.after(() => uplink.close());
    return uplink;
  };
  return { file: (name: string) => path.join(folder, name), arena, nic, send, plug };
}

/** A packet with right checksums, from a station of its own to nobody known. */
function packet(change: Partial<PacketSpec> = {}) {
  const spec = {
    family: 4,
    protocol: 6,
    ipOptions: 0,
    tcpOptions: 0,
    payload: 100,
    tcpFlags: 0x18,
    seed: 5,
    ...change,
  };
  const built = buildPacket(spec as PacketSpec);
  built.bytes.set(macBytes('02:00:00:00:00:01'), 0);
  built.bytes.set(macBytes('02:00:00:00:00:02'), 6);
  return built;
}

test('records what is on the switch; readable, private, with the time of the tick', (t) => {
  const f = fixture(t);
  const file = f.file('out.pcapng');
  writeFileSync(file, 'old');
  chmodSync(file, 0o644);
  const uplink = f.plug({ write: file });
  const plain = packet();
  const odd = packet({ payload: 101, family: 6, protocol: 17 });
  uplink.tick(1234.5);
  f.send({ source: 1, bytes: plain.bytes, cuts: [20, 60] });
  uplink.tick(1240);
  f.send({ source: 1, bytes: odd.bytes, tci: 0x6064 });
  uplink.close();
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const [first, second, ...rest] = readCapture(readFileSync(file));
  assert.equal(rest.length, 0);
  assert.deepEqual(first!.data, plain.bytes);
  assert.equal(first!.timestampNs, EPOCH + 1_234_500_000n);
  const tagged = [...odd.bytes.subarray(0, 12), 0x81, 0x00, 0x60, 0x64, ...odd.bytes.subarray(12)];
  assert.deepEqual([...second!.data], tagged);
  assert.equal(second!.timestampNs, EPOCH + 1_240_000_000n);
});

test('tshark finds whole segments with right checksums where a NIC was left to do them', (t) => {
  try {
    execFileSync('tshark', ['--version'], { stdio: 'pipe' });
  } catch {
    return t.skip('tshark is not installed');
  }
  const f = fixture(t);
  const file = f.file('out.pcapng');
  const uplink = f.plug({ write: file });
  const large = packet({ payload: 5000 });
  large.bytes[checksumField(large)]! ^= 0xff;
  const flags = F.IPV4 | F.TCP | F.TX_TCP_CHECKSUM | F.TX_IP_CHECKSUM | F.TX_TSO;
  const udp = packet({ payload: 77, family: 6, protocol: 17 });
  udp.bytes[checksumField(udp)]! ^= 0xff;
  f.send(
    { source: 1, bytes: large.bytes, flags, mss: 1460, l4Offset: large.l4, cuts: [54, 4000] },
    { source: 1, bytes: udp.bytes, flags: F.IPV6 | F.UDP | F.TX_UDP_CHECKSUM, l4Offset: udp.l4, tci: 9 },
  );
  uplink.close();
  const fields = ['frame.len', 'ip.checksum.status', 'tcp.checksum.status', 'udp.checksum.status', 'vlan.id'];
  const checks = ['ip.check_checksum', 'tcp.check_checksum', 'udp.check_checksum'].flatMap((o) => ['-o', `${o}:TRUE`]);
  const args = ['-r', file, ...checks, '-T', 'fields', ...fields.flatMap((name) => ['-e', name])];
  const lines = execFileSync('tshark', args, { stdio: ['pipe', 'pipe', 'pipe'] })
    .toString()
    .trimEnd()
    .split('\n');
  const segment = (bytes: number) => `${bytes}\t1\t1\t\t`;
  assert.deepEqual(lines, [
    segment(1514),
    segment(1514),
    segment(1514),
    segment(674),
    `${14 + 4 + 40 + 8 + 77}\t\t\t1\t9`,
  ]);
});

test('a recorder sees unicast between others unless it is told to be an uplink only', (t) => {
  const f = fixture(t);
  const uplink = f.plug({ write: f.file('a.pcapng') });
  assert.equal((uplink.filter & PORT_FILTER.PROMISCUOUS) !== 0, true);
  const bytes = packet().bytes;
  f.send({ source: 1, bytes });
  uplink.filter = UPLINK_FILTER;
  f.send({ source: 1, bytes });
  uplink.filter = 0;
  f.send({ source: 1, bytes });
  assert.equal(uplink.stats().recorded, 2);
});

test('more than its buffer is written on the way; a full disk ends the recording only', (t) => {
  const f = fixture(t);
  const file = f.file('big.pcapng');
  const uplink = f.plug({ write: file });
  const burst = Array.from({ length: 200 }, (_, i) => ({
    source: 1,
    bytes: packet({ payload: 1300, seed: i + 1 }).bytes,
  }));
  for (let i = 0; i < 5; i++) f.send(...burst);
  uplink.close();
  const packets = readCapture(readFileSync(file));
  assert.deepEqual(
    packets.map((p) => Buffer.compare(p.data, burst[packets.indexOf(p) % 200]!.bytes)),
    new Array(1000).fill(0),
  );

  const full = new PcapUplink({
    ...{ arena: f.arena, datapath: testMemory().datapath, sink: { forward() {} } },
    number: 3,
    write: '/dev/full',
  });
  full.tick(10_000);
  assert.match(full.failure ?? '', /ENOSPC/);
  full.close();
});

test('replays what was recorded, byte for byte, tags in their cell', (t) => {
  const f = fixture(t);
  const file = f.file('in.pcap');
  const frames = Array.from(
    { length: 100 },
    (_, i) => packet({ payload: i * 14, seed: i + 1, ...(i % 3 ? {} : { tag: 5 }) }).bytes,
  );
  writeFileSync(file, Buffer.concat([pcapHeader(), ...frames.map((b, i) => pcapRecord(BigInt(i), b))]));
  const uplink = f.plug({ read: file });
  assert.equal(uplink.arm(), false);
  uplink.paused = true;
  assert.deepEqual([uplink.poll(), uplink.arm()], [0, true]);
  uplink.paused = false;
  assert.equal(uplink.poll(), 32);
  while (uplink.poll() > 0);
  assert.deepEqual([uplink.done, uplink.arm(), uplink.failure], [true, true, undefined]);
  const seen = f.nic.take();
  assert.equal(seen.length, 100);
  for (const [i, frame] of seen.entries()) {
    const expected = i % 3 ? frames[i]! : [...frames[i]!.subarray(0, 12), ...frames[i]!.subarray(16)];
    assert.deepEqual([...frame.bytes], [...expected]);
    assert.equal(frame.tci, i % 3 ? undefined : 5);
  }
});

test('a paced replay follows the timestamps from its first tick on', (t) => {
  const f = fixture(t);
  const file = f.file('in.pcap');
  const at = [0n, 500_000n, 10_000_000n, 10_000_000n, 9_000_000n];
  writeFileSync(file, Buffer.concat([pcapHeader(), ...at.map((ns) => pcapRecord(EPOCH + ns, packet().bytes))]));
  const uplink = f.plug({ read: file, paced: true });
  assert.equal(uplink.poll(), 0);
  const sent = [5000, 5000, 5001, 5009.9, 5010, 5011].map((ms) => {
    uplink.tick(ms);
    return uplink.poll();
  });
  assert.deepEqual(sent, [1, 0, 1, 0, 3, 0]);
  assert.equal(uplink.done, true);
});

test('frames that are not whole are skipped; a capture that breaks off is reported, and what came before it is sent', (t) => {
  const f = fixture(t);
  const file = f.file('in.pcap');
  const good = packet().bytes;
  const records = [
    pcapRecord(0n, good),
    pcapRecord(0n, good.subarray(0, 60), 200),
    pcapRecord(0n, good.subarray(0, 13)),
  ];
  writeFileSync(
    file,
    Buffer.concat([pcapHeader(), ...records, pcapRecord(0n, good), pcapRecord(0n, good).subarray(0, 40)]),
  );
  const uplink = f.plug({ read: file });
  while (uplink.poll() > 0);
  assert.deepEqual([uplink.stats().sent, uplink.stats().skipped, uplink.done], [2, 2, true]);
  assert.match(uplink.failure ?? '', /ends in the middle/);
});

test('files that cannot be used are named', (t) => {
  const f = fixture(t);
  const regions = f.arena.regions().length;
  writeFileSync(f.file('text'), 'this is no capture file at all');
  assert.throws(() => f.plug({ read: f.file('none') }), /PcapError: capture .*none: ENOENT/);
  assert.throws(() => f.plug({ read: f.file('text') }), /capture .*text: not a capture that can be read: .*0x73696874/);
  assert.throws(() => f.plug({ write: f.file('no/folder') }), /capture .*folder: ENOENT/);
  assert.throws(() => f.plug({}), /expected a file/);
  assert.equal(f.arena.regions().length, regions);
});
