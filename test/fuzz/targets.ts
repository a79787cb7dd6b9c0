// What is fuzzed: each target takes bytes and either copes with them or throws its own kind of error.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseUplink, UplinkError } from '../../src/host/uplinks/index.js';
import { NETVSC_CLASS } from '../../src/vmbus/device.js';
import { findMapping, mappingRefusal, parseMappings } from '../../src/vmbus/uio/proc-maps.js';
import { scanBus } from '../../src/vmbus/uio/scan.js';
import { parseIpv6, parseMac } from '../../src/wire/address-text.js';
import * as ndis from '../../src/wire/ndis.js';
import { decodeIndirectionTable, decodeNvsp, NVSP_VERSION, nvspText } from '../../src/wire/nvsp.js';
import { readCapture } from '../../src/wire/pcap.js';
import { decodePpis, ppiText } from '../../src/wire/ppi.js';
import { decodeRndis, rndisText } from '../../src/wire/rndis.js';
import { WireError } from '../../src/wire/struct.js';
import { decodePacket } from '../../src/wire/vmbus-packet.js';
import { ObjectError } from '../../src/xdp/object/errors.js';
import { RingTarget } from './ring-target.js';
import { runXdpObject } from './xdp-object-target.js';

export interface Target {
  readonly name: string;
  /** Says what came of the input, in few words: new answers are worth following. Throws when a rule is broken. */
  run(input: Uint8Array): string;
  close?(): void;
}

type ErrorClass = new (...args: never[]) => Error;
const text = (input: Uint8Array) => Buffer.from(input).toString('latin1');

/** Runs `action`; of errors only those of this class may come out. */
function only(kind: ErrorClass, action: () => unknown): string {
  try {
    action();
    return 'ok';
  } catch (error) {
    if (!(error instanceof kind)) throw error;
    return error.message.replace(/0x[0-9a-f]+|\d+|".*"/g, '#');
  }
}

const decoder = (name: string, ...actions: ((input: Uint8Array) => unknown)[]): Target => ({
  name,
  run: (input) => actions.map((action) => only(WireError, () => action(input))).join('; '),
});

/** Packets and infos are parts of the input, so there cannot be more of them than bytes. */
function bounded(list: readonly unknown[], input: Uint8Array): void {
  assert.ok(list.length <= input.length, `${list.length} things in ${input.length} bytes`);
}

export function createTargets(): Target[] {
  const rings = new RingTarget();
  return [
    decoder('packet', (input) => decodePacket(input)),
    decoder(
      'nvsp',
      ...Object.values(NVSP_VERSION).map((version) => (input: Uint8Array) => decodeNvsp(input, version)),
      (input) => decodeNvsp(input, NVSP_VERSION.V61, true),
      (input) => nvspText(input, NVSP_VERSION.V61),
      (input) => decodeIndirectionTable(input),
    ),
    decoder('rndis', decodeRndis, (input) => rndisText(input, true)),
    decoder('ppi', (input) => {
      const infos = decodePpis(input);
      bounded(infos, input);
      for (const info of infos) ppiText(info, true);
    }),
    decoder(
      'ndis',
      ndis.decodeConfigParameter,
      ndis.decodeNdisOffload,
      ndis.decodeNdisOffloadParameters,
      ndis.decodeRssParameters,
      ndis.decodeRssCapabilities,
    ),
    decoder('capture', (input) => bounded(readCapture(input), input)),
    {
      name: 'maps',
      run(input) {
        const mappings = parseMappings(text(input));
        bounded(mappings, input);
        let end = 0;
        for (const mapping of mappings) {
          assert.ok(mapping.firstPage >= end && mapping.pages >= 0, `${mapping.range} overlaps the one before it`);
          end = mapping.firstPage + mapping.pages;
          if (mapping.pages > 0) assert.ok(findMapping(mappings, mapping.firstPage) === mapping, mapping.range);
          mappingRefusal(mapping);
        }
        return `${Math.min(mappings.length, 4)}`;
      },
    },
    {
      name: 'uplink',
      run: (input) =>
        only(UplinkError, () => {
          parseIpv6(text(input));
          parseMac(text(input));
          parseUplink(text(input));
        }),
    },
    attributeTarget(),
    { name: 'xdpobject', run: (input) => only(ObjectError, () => runXdpObject(input)) },
    { name: 'guestring', run: (input) => rings.guest(input) },
    { name: 'hostring', run: (input) => rings.host(input) },
  ];
}

/** Attribute files of a device: the input's lines are class, id, relid and monitor id, "|" between files. */
function attributeTarget(): Target {
  const root = mkdtempSync(path.join(tmpdir(), 'netvsc-fuzz-'));
  const device = path.join(root, 'sys/bus/vmbus/devices/vmbus_1');
  mkdirSync(path.join(device, 'uio/uio0'), { recursive: true });
  return {
    name: 'attributes',
    run(input) {
      const files = text(input).split('|');
      ['class_id', 'device_id', 'id', 'monitor_id'].forEach((name, i) => {
        writeFileSync(path.join(device, name), files[i] ?? '', 'latin1');
      });
      const { devices, problems } = scanBus(root);
      for (const found of devices) {
        assert.equal(found.classId, NETVSC_CLASS);
        assert.ok(found.relid >= 1 && found.relid <= 65_535 && (found.monitorId ?? 0) < 128, JSON.stringify(found));
      }
      for (const { reason } of problems) assert.ok(reason.length < 400, `a message of ${reason.length} characters`);
      return `${devices.length} ${problems.map(({ reason }) => reason.replace(/".*"/, '')).join()}`;
    },
    close: () => rmSync(root, { recursive: true }),
  };
}
