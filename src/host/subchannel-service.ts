// What a host reads on a subchannel: data. Control belongs to the primary channel; RNDIS control messages are refused here, NVSP
// ones end the channel (facts/hyper-v-host.md 3.4).
import type { Datapath } from '../datapath/datapath.js';
import { EVENT_KIND } from '../memory/layout.js';
import { NVSP_MESSAGE, NVSP_STATUS, NvspHeader, NvspSendRndisPacketComplete } from '../wire/nvsp.js';
import { nameOf } from '../wire/struct.js';
import { checkRing, notInFlight } from './channel-faults.js';
import type { GuestView } from './guest-view.js';
import { ChannelFault } from './netvsp.js';
import type { FrameSink } from './ports.js';
import type { HostSubchannel } from './subchannels.js';

/** Frames of one poll, and polls of one call: others wait no longer than that. */
const BURST = 64;
const MAX_POLLS = 4;
/** Ring bytes of a completion with its NVSP payload. */
const COMPLETION_ROOM = 256;
const REFUSED = NvspSendRndisPacketComplete.encode({ status: NVSP_STATUS.FAIL });

/** What the NIC does for its subchannels. */
export interface SubchannelService {
  readonly datapath: Datapath;
  /** Where the guest's frames go. */
  readonly sink: FrameSink;
  readonly guest: GuestView;
  /** Counts a control-path packet. */
  readonly count: () => void;
}

/** Reads the guest's ring and forwards what it sends. Returns how much there was to do. Throws ChannelFault or WireError. */
export function serveSubchannel(subchannel: HostSubchannel, service: SubchannelService): number {
  const { address, channel, outbox } = subchannel;
  const { datapath } = service;
  let work = 0;
  for (let polls = 0; polls < MAX_POLLS; polls++) {
    if (!outbox.flush()) {
      checkRing(channel);
      subchannel.set('blocked', COMPLETION_ROOM);
      break;
    }
    service.guest.prepare(address);
    const frames = datapath.hostPoll(address, BURST);
    const messages = subchannel.get('transactionCount');
    if (frames > 0) service.sink.forward(subchannel.get('frames'), frames);
    datapath.hostComplete(address);
    checkRing(channel);
    const events = channel.hasEvents;
    if (events) drain(subchannel, service);
    work += messages + (events ? 1 : 0);
    if (!events && frames < BURST) break;
  }
  return work;
}

/** Apart from the hot loop, whose every call would pay for the closure's variables. */
function drain(subchannel: HostSubchannel, service: SubchannelService): void {
  subchannel.channel.drainEvents((kind, low, high, a, _b, payload) => {
    service.count();
    takeEvent(subchannel, service, kind, low, high, a === 1, payload);
  });
}

function takeEvent(
  subchannel: HostSubchannel,
  service: SubchannelService,
  kind: number,
  low: number,
  high: number,
  wanted: boolean,
  payload: Uint8Array,
): void {
  if (kind === EVENT_KIND.GPA_MISS) {
    if (!service.guest.miss(subchannel.address, low, high)) subchannel.set('regionMissFails', 1);
  } else if (kind === EVENT_KIND.RNDIS_CONTROL) {
    if (wanted) subchannel.outbox.complete(low, high, REFUSED, subchannel.get('nvspBytes'));
  } else if (kind === EVENT_KIND.NVSP) {
    const name = nameOf(NVSP_MESSAGE, NvspHeader.decode(payload).messageType);
    throw new ChannelFault(`${name} on a subchannel: expected SEND_RNDIS_PACKET`);
  } else throw notInFlight(low, high);
}
