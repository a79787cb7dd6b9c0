// iperf3 between two interfaces: everything arrives, in order. No rates: the machine may be busy.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HostProcess, type Place, twoPlaces } from '../netdev/rig.js';
import { type IperfReport, iperf, skipReason } from './rig.js';

const skip = skipReason('iperf3');

async function tcp(client: Place, server: Place, address: string, words: string): Promise<void> {
  const { end } = await iperf(client, server, address, `-t 1 ${words}`);
  const sent = end.sum_sent!.bytes;
  const received = end.sum_received!.bytes;
  assert.ok(received > 0 && received <= sent, `${words}: ${received} of ${sent} bytes received`);
  // What is sent again was late, or the kernel dropped it in front of the interface: eight streams, and few cores.
  const segments = sent / (Number(/-M (\d+)/.exec(words)?.[1] ?? 1460) - 12);
  const again = end.sum_sent!.retransmits ?? 0;
  assert.ok(again <= 200 + segments / 20, `${words}: ${again} of about ${segments.toFixed(0)} segments sent again`);
}

async function udp(client: Place, server: Place, address: string, words: string): Promise<void> {
  const { end }: IperfReport = await iperf(client, server, address, `-u -t 1 ${words}`);
  const { packets = 0, lost_packets: lost = 0 } = end.sum ?? {};
  assert.ok(packets > 0 && lost < packets, `${words}: ${lost} of ${packets} datagrams lost`);
  for (const { udp: stream } of end.streams) assert.equal(stream!.out_of_order, 0, `${words}: out of order`);
}

for (const queues of ['1', '4']) {
  test(`TCP and UDP, both families, eight at a time, both ways, ${queues} channels`, { skip }, async (t) => {
    const host = await HostProcess.start(t);
    const [here, there] = await twoPlaces(t, host, '--queues', queues);
    for (const address of [there.address, there.address6]) {
      for (const words of ['-O 0', '-R', '-P 8', '-P 8 -R', '-l 100', '-M 500'])
        await t.test(`TCP to ${address} ${words}`, () => tcp(here, there, address, words));
      for (const words of [
        '-b 50M -l 1400',
        '-b 50M -l 1400 -R',
        '-b 10M -P 8 -l 1400',
        '-b 100M -l 8000',
        '-b 5M -l 64',
      ])
        await t.test(`UDP to ${address} ${words}`, () => udp(here, there, address, words));
    }
  });
}
