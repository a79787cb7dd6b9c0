// The NVSP half of attach (facts/linux-guest.md 2.1, 2.2; facts/hyper-v-host.md 3): version, NDIS configuration, buffers.
import type { GpadlRegion } from '../vmbus/device.js';
import {
  NDIS_VERSION,
  NVSP_CAPABILITY,
  NVSP_MESSAGE,
  NVSP_STATUS,
  NVSP_SUBCHANNEL_OPERATION,
  NVSP_VERSION,
  NVSP_VERSIONS_NEWEST_FIRST,
  NvspInit,
  NvspInitComplete,
  NvspRevokeReceiveBuffer,
  NvspRevokeSendBuffer,
  NvspSendNdisConfig,
  NvspSendNdisVersion,
  NvspSendReceiveBuffer,
  NvspSendReceiveBufferComplete,
  NvspSendSendBuffer,
  NvspSendSendBufferComplete,
  NvspSubchannelComplete,
  NvspSubchannelRequest,
  ndisVersionFields,
} from '../wire/nvsp.js';
import type { ControlPath } from './control.js';
import { type Expected, hex, NetvscError, nvspStatus } from './requests.js';

/** What guests have always called their receive buffer; the send buffer is 0. */
export const RECEIVE_BUFFER_ID = 0xcafe;
const SEND_BUFFER_ID = 0;

/** A smaller section cannot hold an RNDIS packet header and an Ethernet header. */
const MIN_SECTION_BYTES = 68;

/** Finds the newest version that the host takes. */
export async function negotiateVersion(
  control: ControlPath,
  where: string,
  versions: readonly number[] = NVSP_VERSIONS_NEWEST_FIRST,
): Promise<number> {
  const refused: string[] = [];
  for (const version of versions) {
    const reply = await control.nvspRequest(
      `NVSP init ${hex(version)}`,
      NvspInit.encode({ protocolVersion: version, protocolVersion2: version }),
      expected(NVSP_MESSAGE.INIT_COMPLETE, 'init complete', NvspInitComplete.size),
    );
    const { status } = NvspInitComplete.decode(reply);
    if (status === NVSP_STATUS.SUCCESS) return version;
    refused.push(`${hex(version)}: status ${nvspStatus(status)}`);
  }
  throw new NetvscError(where, 'NVSP init', `the host refused every version: ${refused.join(', ')}`);
}

/** Sends NDIS configuration and version, which have no answer. `frameBytes` = MTU + 14. Returns the NDIS version. */
export function configure(control: ControlPath, nvspVersion: number, frameBytes: number, rsc: boolean): number {
  if (nvspVersion >= NVSP_VERSION.V2) {
    const capabilities =
      NVSP_CAPABILITY.IEEE8021Q |
      (nvspVersion >= NVSP_VERSION.V5 ? NVSP_CAPABILITY.SRIOV | NVSP_CAPABILITY.TEAMING : 0) |
      (rsc && nvspVersion >= NVSP_VERSION.V61 ? NVSP_CAPABILITY.RSC_OVER_VMBUS : 0);
    control.nvspSend(NvspSendNdisConfig.encode({ mtu: frameBytes, capabilities: BigInt(capabilities) }));
  }
  const ndisVersion = nvspVersion <= NVSP_VERSION.V4 ? NDIS_VERSION.NDIS_6_1 : NDIS_VERSION.NDIS_6_30;
  control.nvspSend(NvspSendNdisVersion.encode(ndisVersionFields(ndisVersion)));
  return ndisVersion;
}

/** How a shared buffer is divided. */
export interface Sections {
  readonly sections: number;
  readonly sectionBytes: number;
}

export async function connectReceiveBuffer(
  control: ControlPath,
  where: string,
  buffer: GpadlRegion,
): Promise<Sections> {
  const step = 'NVSP receive buffer';
  const message = NvspSendReceiveBuffer.encode({ gpadlHandle: buffer.gpadl, id: RECEIVE_BUFFER_ID });
  const wanted = expected(
    NVSP_MESSAGE.SEND_RECEIVE_BUFFER_COMPLETE,
    'receive buffer complete',
    NvspSendReceiveBufferComplete.size,
  );
  const reply = NvspSendReceiveBufferComplete.decode(await control.nvspRequest(step, message, wanted));
  const refuse = (what: string): never => {
    throw new NetvscError(where, step, what);
  };
  if (reply.status !== NVSP_STATUS.SUCCESS) refuse(`the host answered status ${nvspStatus(reply.status)}`);
  if (reply.sectionCount !== 1) refuse(`expected 1 section group, got ${reply.sectionCount}`);
  if (reply.offset !== 0) refuse(`expected the section group at offset 0, got ${reply.offset}`);
  if (reply.suballocationSize < MIN_SECTION_BYTES) {
    refuse(`expected sections of at least ${MIN_SECTION_BYTES} bytes, got ${reply.suballocationSize}`);
  }
  const total = reply.suballocationSize * reply.suballocationCount;
  if (total === 0 || total > buffer.bytes) {
    refuse(
      `expected sections within ${buffer.bytes} bytes, got ${reply.suballocationCount} of ${reply.suballocationSize} bytes`,
    );
  }
  return { sections: reply.suballocationCount, sectionBytes: reply.suballocationSize };
}

export async function connectSendBuffer(control: ControlPath, where: string, buffer: GpadlRegion): Promise<Sections> {
  const step = 'NVSP send buffer';
  const message = NvspSendSendBuffer.encode({ gpadlHandle: buffer.gpadl, id: SEND_BUFFER_ID });
  const wanted = expected(
    NVSP_MESSAGE.SEND_SEND_BUFFER_COMPLETE,
    'send buffer complete',
    NvspSendSendBufferComplete.size,
  );
  const { status, sectionSize: sectionBytes } = NvspSendSendBufferComplete.decode(
    await control.nvspRequest(step, message, wanted),
  );
  if (status !== NVSP_STATUS.SUCCESS) {
    throw new NetvscError(where, step, `the host answered status ${nvspStatus(status)}`);
  }
  if (sectionBytes < MIN_SECTION_BYTES || sectionBytes > buffer.bytes) {
    throw new NetvscError(
      where,
      step,
      `expected sections of ${MIN_SECTION_BYTES}..${buffer.bytes} bytes, got ${sectionBytes}`,
    );
  }
  return { sections: Math.floor(buffer.bytes / sectionBytes), sectionBytes };
}

/** Asks for subchannels. Returns how many the host gives: at most `count`, 0 when it refuses. */
export async function requestSubchannels(control: ControlPath, where: string, count: number): Promise<number> {
  const step = 'NVSP subchannels';
  const message = NvspSubchannelRequest.encode({
    operation: NVSP_SUBCHANNEL_OPERATION.ALLOCATE,
    subchannelCount: count,
  });
  const wanted = expected(NVSP_MESSAGE.SUBCHANNEL, 'subchannel complete', NvspSubchannelComplete.size);
  const reply = NvspSubchannelComplete.decode(await control.nvspRequest(step, message, wanted));
  if (reply.status !== NVSP_STATUS.SUCCESS) return 0;
  if (reply.subchannelCount > count) {
    throw new NetvscError(where, step, `expected at most ${count}, the host gave ${reply.subchannelCount}`);
  }
  return reply.subchannelCount;
}

export function revokeReceiveBuffer(control: ControlPath): void {
  control.nvspSend(NvspRevokeReceiveBuffer.encode({ id: RECEIVE_BUFFER_ID }));
}

export function revokeSendBuffer(control: ControlPath): void {
  control.nvspSend(NvspRevokeSendBuffer.encode({ id: SEND_BUFFER_ID }));
}

function expected(type: number, name: string, bytes: number): Expected {
  return { type, name, bytes };
}
