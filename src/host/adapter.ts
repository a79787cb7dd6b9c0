// A NIC as NDIS sees it: what OIDs query and set. Lives as long as the NIC; `reset` when a guest comes or goes.
import { OFFLOAD } from '../memory/layout.js';
import type { NdisRevision } from '../wire/ndis.js';
import { NVSP_VERSION } from '../wire/nvsp.js';
import { offloadStructure, type RssState, supportedOffloads } from './offload-config.js';
import type { Profile } from './profiles.js';

export interface AdapterOptions {
  readonly profile: Profile;
  /** 6 bytes. */
  readonly mac: Uint8Array;
  /** What the guest may show as the NIC's name; default "Network Device", which Linux guests ignore. */
  readonly friendlyName?: string;
  readonly linkSpeedBps?: number;
  /** Called when the guest wants another MAC address; false = refused. */
  readonly onMac?: (mac: Uint8Array) => boolean;
}

export class Adapter {
  readonly profile: Profile;
  readonly permanentMac: Uint8Array;
  readonly friendlyName: string;
  readonly linkSpeedBps: number;
  currentMac: Uint8Array;
  linkUp = true;
  /** NDIS packet filter; 0 = the guest receives nothing. */
  filter = 0;
  /** So many of the next RNDIS initializes fail. */
  refusals = 0;
  /** OFFLOAD bits in force. */
  offloads = 0;
  rss: RssState | undefined;
  /** Negotiated by NVSP. */
  frameBytes = 1514;
  nvspVersion = 0;
  ndisMajor = 0;
  ndisMinor = 0;
  rscNegotiated = false;
  readonly #onMac: (mac: Uint8Array) => boolean;

  constructor(options: AdapterOptions) {
    this.profile = options.profile;
    this.permanentMac = options.mac.slice();
    this.currentMac = this.permanentMac;
    this.friendlyName = options.friendlyName ?? 'Network Device';
    this.linkSpeedBps = options.linkSpeedBps ?? options.profile.linkSpeedBps;
    this.#onMac = options.onMac ?? (() => true);
  }

  /** Back to what a guest finds that opens the channel. The link is the host's. */
  reset(): void {
    this.currentMac = this.permanentMac;
    this.filter = 0;
    this.offloads = OFFLOAD.VLAN; // what a guest did not ask for is not left to it
    this.rss = undefined;
    this.frameBytes = 1514;
    this.nvspVersion = 0;
    this.ndisMajor = 0;
    this.ndisMinor = 0;
    this.rscNegotiated = false;
  }

  /** NDIS version in force: the guest's, at most the profile's. */
  get ndis(): number {
    return Math.min((this.ndisMajor << 16) | (this.ndisMinor & 0xffff), this.profile.maxNdis) >>> 0;
  }

  /** OFFLOAD bits that this host can do for this guest. */
  get supported(): number {
    return supportedOffloads(this.profile.offloads, this.rscNegotiated);
  }

  /** Revision of offload structures that go with the NVSP version (facts/linux-guest.md 2.1). */
  get offloadRevision(): NdisRevision {
    if (this.nvspVersion >= NVSP_VERSION.V5) return 3;
    return this.nvspVersion >= NVSP_VERSION.V4 ? 2 : 1;
  }

  /** NDIS_OFFLOAD for these OFFLOAD bits; `revision` at most what the guest can hold. */
  offloadStructure(bits: number, revision: NdisRevision = this.offloadRevision): Uint8Array {
    return offloadStructure(bits, revision < this.offloadRevision ? revision : this.offloadRevision);
  }

  /** Sets the current MAC address; false = the address is no station's, or somebody else's. */
  changeMac(mac: Uint8Array): boolean {
    const station = mac.length === 6 && (mac[0]! & 1) === 0 && mac.some((byte) => byte !== 0);
    if (!station || !this.#onMac(mac)) return false;
    this.currentMac = mac.slice();
    return true;
  }
}
