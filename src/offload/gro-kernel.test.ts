// Linux as the second opinion on receive offload: the same frames go through a veth pair with GRO on, all of a burst in one
// poll, and what the kernel's stack is given must be what our stage hands out, byte for byte and in the same order.
//
// One poll: the receiving interface polls in a kernel thread that is pinned to our CPU, and we send in realtime, so that it
// does not run before the burst is complete. The kernel merges only what comes from an interface without TSO.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeSync } from 'node:fs';
import { release } from 'node:os';
import { after, before, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { VNET_HEADER_BYTES } from '../datapath/datapath.js';
import { PACKET_FLAG } from '../memory/layout.js';
import { inNetwork } from '../memory/os/netns.js';
import { noNetworkReason, PacketPeer, TestNetwork } from '../memory/os/packet-peer-testing.js';
import { PACKET_HEADER_BYTES } from '../memory/os/packet-socket.js';
import { affinity, setAffinity } from '../memory/os/process.js';
import { inRealtime } from '../memory/os/realtime-testing.js';
import { closeTestTap, noTapReason, openTestTap } from '../memory/os/tap-testing.js';
import { type GroOutput, GroRig, VLAN } from './gro-rig-testing.js';
import { type GroEvent, groEvents, groFrames, groSweep, plainEvent, UNTAGGED_FLOWS } from './gro-traffic-testing.js';
import { get16, NEEDS_CSUM, put16 } from './offload-testing.js';

const { TX_TSO } = PACKET_FLAG;
const ETHER_TYPE_LAST = 0x88b5;
/** A frame that is nothing for receive offload. */
const LAST = frameOfType(ETHER_TYPE_LAST);
/** Below MTU 9000 and its tags. */
const MTU = 9000;
const PATIENCE_MS = 3000;
const ATTEMPTS = 5;

function frameOfType(type: number): Uint8Array {
  const frame = new Uint8Array(60);
  put16(frame, 12, type);
  return frame;
}

/** Linux 6.18 changed two rules: CWR ends a packet, and identifications may stay the same without "don't fragment". */
function reason(): string | false {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  if (major < 6 || (major === 6 && minor < 18)) return `the rules are those of Linux 6.18, this is ${release()}`;
  const missing = noNetworkReason();
  if (missing !== false) return missing;
  if (spawnSync('ethtool', ['--version']).status !== 0) return 'needs ethtool';
  try {
    inRealtime(() => {});
    return false;
  } catch (error) {
    return `needs realtime priority: ${(error as Error).message}`;
  }
}

class KernelGro {
  readonly #network = new TestNetwork();
  readonly #sender: PacketPeer;
  readonly #receiver: PacketPeer;
  readonly #names = [`gs${process.pid}`, `gr${process.pid}`] as const;

  constructor(cpu: number) {
    const [from, to] = this.#names;
    this.#network.veth(from, to);
    this.#network.run(`ip link set ${from} mtu ${MTU}`);
    this.#network.run(`ip link set ${to} mtu ${MTU}`);
    this.#network.run(`ethtool -K ${from} tso off`);
    this.#network.run(`ethtool -K ${to} gro on`);
    // Another network's interfaces are in a sysfs of its own; no blanks, as run() splits at them.
    const path = `/sys/class/net/${to}/threaded`;
    this.#network.run(`unshare -m sh -c mount\${IFS}-t\${IFS}sysfs\${IFS}none\${IFS}/sys&&echo\${IFS}1>${path}`);
    setAffinity([cpu], this.#thread());
    this.#sender = this.#network.in(() => new PacketPeer(from));
    this.#receiver = this.#network.in(() => new PacketPeer(to, undefined, true));
  }

  /** The kernel thread that polls the receiving interface. */
  #thread(): number {
    const name = `napi/${this.#names[1]}-`;
    for (const end = performance.now() + PATIENCE_MS; performance.now() < end; ) {
      for (const entry of readdirSync('/proc')) {
        if (!/^\d+$/.test(entry)) continue;
        try {
          if (readFileSync(`/proc/${entry}/comm`, 'utf8').startsWith(name)) return Number(entry);
        } catch {
          // it ended meanwhile
        }
      }
    }
    throw new Error(`no kernel thread ${name}`);
  }

  set udp(on: boolean) {
    this.#network.run(`ethtool -K ${this.#names[1]} rx-udp-gro-forwarding ${on ? 'on' : 'off'}`);
  }

  /** What the stack is given when these frames come in one poll, at most 64: virtio_net_hdr and frame each. */
  poll(frames: readonly Uint8Array[]): Uint8Array[] {
    this.#receiver.receive(); // what a poll that failed left
    inRealtime(() => {
      for (const frame of frames) assert.ok(this.#sender.send(frame), 'the interface takes no frames');
    });
    const got: Uint8Array[] = [...this.#receiver.receive(1)];
    // In a poll of its own: whatever the kernel held came before it.
    assert.ok(this.#sender.send(LAST));
    const isLast = (frame: Uint8Array | undefined) =>
      frame !== undefined && get16(frame, PACKET_HEADER_BYTES + 12) === ETHER_TYPE_LAST;
    const end = performance.now() + PATIENCE_MS;
    while (!isLast(got.at(-1)) && performance.now() < end) got.push(...this.#receiver.receive(1));
    assert.ok(isLast(got.pop()), 'the kernel lost the last frame');
    return got;
  }

  close(): void {
    this.#sender.close();
    this.#receiver.close();
    this.#network.close();
  }
}

/** What is compared of a packet. Of the header the kernel's length hint is left out, which is what happens to lie in one piece,
 *  and "checksum valid", which it also says of packets that nobody merges. */
function row(header: Uint8Array, frame: Uint8Array, tagged: boolean) {
  const view = new DataView(header.buffer, header.byteOffset);
  const partial = (header[0]! & NEEDS_CSUM) !== 0;
  const start = partial ? view.getUint16(6, true) : 0;
  return {
    bytes: frame.length,
    gsoType: header[1],
    gsoSize: view.getUint16(4, true),
    checksum: partial ? [start + (tagged ? 4 : 0), view.getUint16(8, true)] : [],
    frame: Buffer.from(frame).toString('hex'),
  };
}

const isTagged = (frame: Uint8Array) => [0x8100, 0x88a8].includes(get16(frame, 12));

function kernelRow(packet: Uint8Array) {
  const frame = packet.subarray(PACKET_HEADER_BYTES);
  return row(packet, frame, isTagged(frame));
}

function ourRow(output: GroOutput) {
  assert.ok(output.written, 'a packet that a TAP would not be given');
  return row(output.written, output.written.subarray(VNET_HEADER_BYTES), false);
}

/** The frame as a driver that strips tags hands it over. */
function stripped(frame: Uint8Array) {
  if (frame.length < 18 || get16(frame, 12) !== 0x8100) return { bytes: frame };
  const bytes = Uint8Array.from([...frame.subarray(0, 12), ...frame.subarray(16)]);
  return { bytes, flags: VLAN, vlanTci: get16(frame, 14) };
}

const bytesOf = (events: readonly GroEvent[]) => groFrames(events).map(({ bytes }) => bytes);

const skip = reason();
let kernel: KernelGro | undefined;
let home: number[];
/** A kernel without VLAN support merges nothing that has a tag. */
let tags: boolean;

before(() => {
  if (skip !== false) return;
  home = affinity();
  setAffinity([home[0]!]);
  kernel = new KernelGro(home[0]!);
  const plain = plainEvent(UNTAGGED_FLOWS);
  tags = kernel.poll(bytesOf([plain, plain])).length === 1;
});
after(() => {
  if (skip !== false) return;
  kernel?.close();
  setAffinity(home);
});

/** Compares a poll. The kernel's may be cut in two where its thread gets the CPU in the middle (a busy machine, throttled
 *  real-time threads): then it is asked again. What it does differently it does so every time. */
function compare(kernel: KernelGro, rig: GroRig, strip: boolean, frames: readonly Uint8Array[]): void {
  const inputs = frames.map((bytes) => (strip ? stripped(bytes) : { bytes }));
  const ours = [...rig.receive(inputs), ...rig.flush()].map(ourRow);
  for (let attempt = 1; ; attempt++) {
    const theirs = kernel.poll(frames).map(kernelRow);
    if (attempt < ATTEMPTS && !isDeepStrictEqual(ours, theirs)) continue;
    assert.deepEqual(ours, theirs);
    return;
  }
}

for (const udp of [false, true]) {
  for (const strip of [false, true]) {
    const name = `Linux merges the same packets: UDP ${udp ? 'on' : 'off'}, tags ${strip ? 'beside the data' : 'in the data'}`;
    test(name, { skip }, (context) => {
      if (!tags) context.diagnostic('this kernel has no VLAN support: no tags');
      kernel!.udp = udp;
      const rig = new GroRig(udp);
      fc.assert(
        fc.property(groEvents(tags), (events) => compare(kernel!, rig, strip, bytesOf(events))),
        { numRuns: 100 },
      );
      const { merged, coalesced, evicted, badChecksums } = rig.gro.counters();
      context.diagnostic(JSON.stringify({ merged, coalesced, evicted, badChecksums }));
      for (const count of [merged, coalesced, evicted, badChecksums]) assert.ok(count > 0);
    });
  }
}

test('Linux does the same with every change by itself, and stops where we do', { skip }, (context) => {
  kernel!.udp = true;
  const rig = new GroRig(true);
  const bursts = groSweep(tags);
  for (const burst of bursts) compare(kernel!, rig, false, bytesOf(burst));
  context.diagnostic(`${bursts.length} bursts, ${rig.gro.counters().merged} packets went into others`);
});

test('a TAP takes what comes out, as large packets of the same kind', { skip: noTapReason() }, (context) => {
  const tap = openTestTap();
  const peer = inNetwork(`/proc/self/fd/${tap.network}`, () => new PacketPeer(tap.name, undefined, true));
  try {
    const rig = new GroRig(true);
    let large = 0;
    fc.assert(
      fc.property(groEvents(), fc.boolean(), (events, strip) => {
        const frames = bytesOf(events);
        const inputs = frames.map((bytes) => (strip ? stripped(bytes) : { bytes }));
        const merged = [...rig.receive(inputs), ...rig.flush()].filter(({ flags }) => (flags & TX_TSO) !== 0);
        for (const { written } of merged) assert.equal(writeSync(tap.fd, written!), written!.length);
        const theirs = peer.receive(merged.length).map(kernelRow);
        assert.deepEqual(theirs, merged.map(ourRow));
        large += merged.length;
      }),
      { numRuns: 60 },
    );
    context.diagnostic(`${large} large packets`);
    assert.ok(large > 0);
  } finally {
    peer.close();
    closeTestTap(tap);
  }
});
