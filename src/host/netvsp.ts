// NVSP of one NIC's primary channel: version, init and ready phase, every message a guest may send, and what becomes of
// those it may not (facts/hyper-v-host.md 3). A violation throws ChannelFault: the channel is dead, as on the real host.
import {
  decodeNvsp,
  encodeIndirectionTable,
  NVSP_CAPABILITY,
  NVSP_INDIRECTION_TABLE_ENTRIES,
  NVSP_STATUS,
  NVSP_SUBCHANNEL_OPERATION,
  NVSP_VERSION,
  NvspInitComplete,
  type NvspMessage,
  NvspOidQueryExComplete,
  NvspSendReceiveBufferComplete,
  NvspSendRndisPacketComplete,
  NvspSendSendBufferComplete,
  NvspSubchannelComplete,
  nvspMessageBytes,
} from '../wire/nvsp.js';
import { RNDIS_STATUS } from '../wire/rndis.js';
import { PACKET_TYPE } from '../wire/vmbus.js';
import { type ChannelMemory, MIN_FRAME_BYTES, MIN_SUBALLOCATIONS } from './channel-memory.js';
import { Outbox } from './outbox.js';
import { grantsNvsp, type Profile } from './profiles.js';

/** Ends one channel: what came, what was expected. */
export class ChannelFault extends Error {
  override name = 'ChannelFault';
}

/**
 * Where a channel stands. `closed`: no guest. `version`, `init`, `ready`: facts/hyper-v-host.md 3.3. `stopped`: the guest
 * revoked its buffers, an orderly end. `dead`: a violation. From the last two only closing and opening anew leads on.
 */
export type ChannelPhase = 'closed' | 'version' | 'init' | 'ready' | 'stopped' | 'dead';

const EMPTY = new Uint8Array(0);
/** Most memory pieces of a packet, as InitComplete says it. */
const MDL_CHAIN = 34;

/** Transmit hash value modulo 16 to channel, evenly (facts/hyper-v-host.md 5). */
const sendTable = (queues: number): Uint8Array =>
  encodeIndirectionTable(Array.from({ length: NVSP_INDIRECTION_TABLE_ENTRIES }, (_, i) => i % queues));

/** Where the channel's subchannels come from. */
export interface SubchannelSource {
  /** Makes subchannels until there are `count`; false = that cannot be, and nothing is offered. */
  prepare(count: number): boolean;
  /** Offers prepared ones until `count` are offered. */
  publish(count: number): void;
  /** How many are offered. */
  readonly count: number;
}

export class Netvsp {
  phase: ChannelPhase = 'closed';
  /** Why the phase is `dead` or `stopped`. */
  reason: string | undefined;
  /** Negotiated, 0 before that. */
  version = 0;
  /** As the guest said it (SendNdisVersion), 0 before that. */
  ndisMajor = 0;
  ndisMinor = 0;
  /** Capability bits of SendNdisConfig, the low 32. */
  capabilities = 0;
  /** Largest frame, Ethernet header included: what the guest called its MTU. */
  frameBytes = MIN_FRAME_BYTES;
  readonly #memory: ChannelMemory;
  readonly #profile: Profile;
  readonly #gpadls: { readonly receive: number; readonly send: number };
  readonly #subchannels: SubchannelSource;
  readonly #outbox: Outbox;
  #config = false;
  #ndisVersion = false;
  #receiveBuffer = false;
  #sendBuffer = false;

  constructor(
    memory: ChannelMemory,
    profile: Profile,
    gpadls: { receive: number; send: number },
    subchannels: SubchannelSource,
  ) {
    this.#memory = memory;
    this.#subchannels = subchannels;
    this.#outbox = new Outbox(memory.channel);
    this.#profile = profile;
    this.#gpadls = gpadls;
  }

  /** A guest opened the channel. */
  open(): void {
    this.close();
    this.phase = 'version';
  }

  /** The guest is gone: everything of it is forgotten. */
  close(): void {
    this.phase = 'closed';
    this.reason = undefined;
    this.version = 0;
    this.ndisMajor = 0;
    this.ndisMinor = 0;
    this.capabilities = 0;
    this.frameBytes = MIN_FRAME_BYTES;
    this.#outbox.clear();
    this.#config = false;
    this.#ndisVersion = false;
    this.#receiveBuffer = false;
    this.#sendBuffer = false;
  }

  /** Ends the channel: its rings are not touched again until the guest opens it anew. */
  end(phase: 'dead' | 'stopped', reason: string): void {
    this.phase = phase;
    this.reason = reason;
    this.#outbox.clear();
    this.#memory.set('ready', 0);
  }

  get serving(): boolean {
    return this.phase === 'version' || this.phase === 'init' || this.phase === 'ready';
  }

  /** The guest asked for large receives and this host has them. */
  get rscNegotiated(): boolean {
    const asked = this.version >= NVSP_VERSION.V61 && (this.capabilities & NVSP_CAPABILITY.RSC_OVER_VMBUS) !== 0;
    return asked && this.#profile.rsc;
  }

  /** An RNDIS message came (control or data): the init phase ends, send buffer or not. */
  onRndis(): void {
    if (this.phase === 'init') this.phase = 'ready';
  }

  /**
   * An NVSP message that the data path does not take. `wanted`: the guest asked for a completion; without it the message
   * takes effect, too. Throws ChannelFault or WireError for what kills the channel.
   */
  onMessage(idLow: number, idHigh: number, wanted: boolean, payload: Uint8Array): void {
    const message = decodeNvsp(payload, this.version);
    let answer: Uint8Array;
    if (this.phase === 'version') {
      if (message.kind !== 'INIT') throw new ChannelFault(`${message.kind} in the version phase: expected INIT`);
      answer = this.#init(message.value.protocolVersion);
    } else answer = this.phase === 'init' ? this.#initMessage(message) : this.#readyMessage(message);
    if (wanted && this.serving) this.#reply(idLow, idHigh, answer);
    if (message.kind === 'SUBCHANNEL') this.#offerSubchannels(NvspSubchannelComplete.decode(answer).subchannelCount);
  }

  /** Completes an RNDIS control message. */
  completeRndis(idLow: number, idHigh: number, status: number): void {
    this.#reply(idLow, idHigh, NvspSendRndisPacketComplete.encode({ status }));
  }

  /** Writes completions that waited for room in the ring. True when none waits any more: the ring may be read on. */
  flush(): boolean {
    return this.#outbox.flush();
  }

  #init(version: number): Uint8Array {
    const granted = grantsNvsp(this.#profile, version);
    if (granted) {
      this.version = version;
      this.phase = 'init';
      this.#config = version === NVSP_VERSION.V1; // it has none
      this.#memory.set('nvspBytes', nvspMessageBytes(version));
    }
    return NvspInitComplete.encode({
      negotiatedProtocolVersion: version === NVSP_VERSION.V1 ? version : 0xffff_ffff,
      maximumMdlChainLength: MDL_CHAIN,
      status: granted ? NVSP_STATUS.SUCCESS : NVSP_STATUS.NONE,
    });
  }

  #initMessage(message: NvspMessage): Uint8Array {
    const { kind } = message;
    let answer: Uint8Array = EMPTY;
    switch (kind) {
      case 'SEND_NDIS_CONFIG': {
        this.#once(this.#config, kind);
        const { mtu, capabilities } = message.value;
        const fits = mtu >= MIN_FRAME_BYTES && mtu <= this.#profile.maxFrameBytes;
        this.frameBytes = fits ? mtu : MIN_FRAME_BYTES;
        this.capabilities = Number(capabilities & 0xffff_ffffn);
        this.#config = true;
        if (this.#ndisVersion) this.#memory.setNdisMajor(this.ndisMajor, this.rscNegotiated);
        break;
      }
      case 'SEND_NDIS_VERSION':
        this.#once(this.#ndisVersion, kind);
        this.ndisMajor = message.value.ndisMajorVersion;
        this.ndisMinor = message.value.ndisMinorVersion;
        this.#ndisVersion = true;
        this.#memory.setNdisMajor(this.ndisMajor, this.rscNegotiated);
        break;
      case 'SEND_RECEIVE_BUFFER':
        this.#once(this.#receiveBuffer, kind);
        if (!this.#config) throw new ChannelFault(`${kind} came before SEND_NDIS_CONFIG`);
        answer = this.#takeReceiveBuffer(message.value.gpadlHandle, message.value.id);
        break;
      case 'SEND_SEND_BUFFER':
        this.#once(this.#sendBuffer, kind);
        answer = this.#takeSendBuffer(message.value.gpadlHandle);
        break;
      default:
        throw new ChannelFault(`${kind} in the init phase: expected ${this.#missing()}`);
    }
    // From here on RNDIS messages are read; the first of them ends the phase, as does the last of these four messages.
    if (this.#config && this.#ndisVersion && this.#receiveBuffer) {
      this.#memory.set('ready', 1);
      if (this.#sendBuffer) this.phase = 'ready';
    }
    return answer;
  }

  #readyMessage(message: NvspMessage): Uint8Array {
    const { kind } = message;
    switch (kind) {
      case 'REVOKE_RECEIVE_BUFFER':
      case 'REVOKE_SEND_BUFFER':
        this.end('stopped', `the guest sent ${kind}`);
        return EMPTY;
      case 'SWITCH_DATA_PATH':
        return EMPTY; // no VF here: completed at once, no action (facts/hyper-v-host.md 7.3)
      case 'OID_QUERY_EX':
        return NvspOidQueryExComplete.encode({ status: RNDIS_STATUS.NOT_SUPPORTED, bytes: 0 });
      case 'SUBCHANNEL': {
        const { operation, subchannelCount: count } = message.value;
        const granted = operation === NVSP_SUBCHANNEL_OPERATION.ALLOCATE && this.#grants(count);
        return NvspSubchannelComplete.encode({
          status: granted ? NVSP_STATUS.SUCCESS : NVSP_STATUS.FAIL,
          subchannelCount: granted ? count : 0,
        });
      }
      default:
        throw new ChannelFault(`${kind} in the ready phase: not a message for this phase`);
    }
  }

  /** All or nothing: below the profile's limit, a suballocation for each queue, and memory for the rings. */
  #grants(count: number): boolean {
    if (count >= this.#profile.maxQueues) return false;
    const data = this.#memory.get('suballocationCount') - this.#memory.get('firstDataSuballocation');
    return data >= count + 1 && this.#subchannels.prepare(count);
  }

  /** Offered channels are open (the bus of the guest sees to that), so that the send table follows at once. */
  #offerSubchannels(granted: number): void {
    if (granted === 0) return;
    this.#subchannels.publish(granted);
    const queues = this.#subchannels.count + 1;
    this.#outbox.push(PACKET_TYPE.IN_BAND, 0, 0, sendTable(queues));
  }

  #takeReceiveBuffer(gpadl: number, id: number): Uint8Array {
    this.#sameGpadl('receive', gpadl);
    const limit = this.version < NVSP_VERSION.V4 ? this.#profile.legacyReceiveBytes : Number.POSITIVE_INFINITY;
    const { bytes, count } = this.#memory.carveReceiveBuffer(id, this.frameBytes, limit);
    if (count < MIN_SUBALLOCATIONS)
      throw new ChannelFault(
        `receive buffer: expected at least ${MIN_SUBALLOCATIONS} suballocations of ${bytes} bytes, got ${count}`,
      );
    this.#receiveBuffer = true;
    return NvspSendReceiveBufferComplete.encode({
      status: NVSP_STATUS.SUCCESS,
      sectionCount: 1,
      offset: 0,
      suballocationSize: bytes,
      suballocationCount: count,
      endOffset: bytes * count,
    });
  }

  #takeSendBuffer(gpadl: number): Uint8Array {
    this.#sameGpadl('send', gpadl);
    const sectionSize = this.#profile.sendSectionBytes;
    this.#memory.useSendBuffer(sectionSize);
    this.#sendBuffer = true;
    return NvspSendSendBufferComplete.encode({ status: NVSP_STATUS.SUCCESS, sectionSize });
  }

  /** The one buffer of either kind that this device has is the one of its offer. */
  #sameGpadl(kind: 'receive' | 'send', gpadl: number): void {
    const expected = this.#gpadls[kind];
    if (gpadl === expected) return;
    throw new ChannelFault(
      `${kind} buffer: GPADL 0x${gpadl.toString(16)} is not known, expected 0x${expected.toString(16)}`,
    );
  }

  #once(done: boolean, name: string): void {
    if (done) throw new ChannelFault(`${name} came twice`);
  }

  #missing(): string {
    const needed: readonly [boolean, string][] = [
      [this.#config, 'SEND_NDIS_CONFIG'],
      [this.#ndisVersion, 'SEND_NDIS_VERSION'],
      [this.#receiveBuffer, 'SEND_RECEIVE_BUFFER'],
    ];
    const missing = needed.filter(([came]) => !came).map(([, name]) => name);
    return missing.length > 0 ? `${missing.join(', ')} first` : 'SEND_SEND_BUFFER or an RNDIS message';
  }

  #reply(idLow: number, idHigh: number, message: Uint8Array): void {
    this.#outbox.complete(idLow, idHigh, message, this.#memory.get('nvspBytes'));
  }
}
