// What hosts of different Windows generations announce. A profile only sets ceilings: whatever it lets through is
// honoured. Sources: seeds/linux-netvsc.rst.txt (which release offloads what), facts/linux-guest.md 1 and 2.1 (limits
// that guests keep for old hosts), facts/hyper-v-host.md 3.1 and 4.5 (versions and structures).
import { NVSP_VERSION } from '../wire/nvsp.js';

const ALL_VERSIONS: readonly number[] = Object.values(NVSP_VERSION);

/** Which offloads a host can do for a guest's packets, and for what it delivers. */
export interface OffloadSupport {
  readonly ipv4Header: boolean;
  readonly tcp4: boolean;
  readonly tcp6: boolean;
  readonly udp4: boolean;
  readonly udp6: boolean;
  readonly lso4: boolean;
  readonly lso6: boolean;
}

export interface Profile {
  readonly name: ProfileName;
  /** For people. */
  readonly title: string;
  /** Newest NVSP version that Init is granted. */
  readonly maxNvsp: number;
  /** Newest NDIS version whose OIDs and structures are answered, major << 16 | minor. */
  readonly maxNdis: number;
  readonly offloads: OffloadSupport;
  /** Large receives (RSC in the vSwitch) for guests that ask for them, from NVSP 6.1. */
  readonly rsc: boolean;
  /** Receive-side scaling by UDP ports (NDIS 6.80). */
  readonly udpHash: boolean;
  /** Largest Ethernet frame (header included) that SendNdisConfig may ask for. */
  readonly maxFrameBytes: number;
  /** Bytes of the receive and send buffers that a machine directory gives the guest. */
  readonly receiveBytes: number;
  readonly sendBytes: number;
  /** Most bytes of the receive buffer that are used below NVSP 4 (facts/linux-guest.md 1.1). */
  readonly legacyReceiveBytes: number;
  readonly sendSectionBytes: number;
  /** RNDIS initialize: packet messages that a guest may put into one send. */
  readonly maxPacketsPerMessage: number;
  /** RNDIS initialize: alignment of packets in one send, as a power of two. */
  readonly alignmentShift: number;
  /** Channels that a guest may have, the primary counted. Subchannels came with NVSP 5. */
  readonly maxQueues: number;
  readonly linkSpeedBps: number;
}

export type ProfileName = 'ws2008r2' | 'ws2012' | 'ws2012r2' | 'ws2016' | 'win10' | 'ws2019' | 'ws2022' | 'azure';

const MIB = 1 << 20;

const TCP_ONLY: OffloadSupport = {
  ipv4Header: false,
  tcp4: true,
  tcp6: true,
  udp4: false,
  udp6: false,
  lso4: true,
  lso6: true,
};
const FULL: OffloadSupport = { ...TCP_ONLY, ipv4Header: true, udp4: true, udp6: true };
/** LSO over IPv4 includes the IPv4 header's checksum whether that offload is announced or not. */
const TCP4_ONLY: OffloadSupport = { ...TCP_ONLY, tcp6: false, lso4: false, lso6: false };

const NDIS = { V6_20: 0x6_0014, V6_30: 0x6_001e, V6_40: 0x6_0028, V6_60: 0x6_003c, V6_80: 0x6_0050 } as const;

const BASE = {
  maxNvsp: NVSP_VERSION.V5,
  maxNdis: NDIS.V6_30,
  offloads: FULL,
  rsc: false,
  udpHash: false,
  maxFrameBytes: 9216,
  receiveBytes: 31 * MIB,
  sendBytes: 15 * MIB,
  legacyReceiveBytes: 15 * MIB,
  sendSectionBytes: 6144,
  maxPacketsPerMessage: 8,
  alignmentShift: 3,
  maxQueues: 64,
  linkSpeedBps: 10_000_000_000,
} as const;

/**
 * All profiles. NVSP 5 came with Windows Server 2012 R2: its subchannels are what made receive-side scaling in guests
 * possible, which that release introduced; guests leave UDP checksums alone up to NVSP 4, so those came with it, too.
 * win10 is the client of the releases between 2016 and 2019: NVSP 6, no RSC.
 */
export const PROFILES: Readonly<Record<ProfileName, Profile>> = {
  ws2008r2: {
    ...BASE,
    name: 'ws2008r2',
    title: 'Windows Server 2008 R2',
    maxNvsp: NVSP_VERSION.V2,
    maxQueues: 1,
    maxNdis: NDIS.V6_20,
    offloads: TCP4_ONLY,
    receiveBytes: 15 * MIB,
  },
  ws2012: {
    ...BASE,
    name: 'ws2012',
    title: 'Windows Server 2012',
    maxNvsp: NVSP_VERSION.V4,
    maxQueues: 1,
    offloads: TCP_ONLY,
  },
  ws2012r2: { ...BASE, name: 'ws2012r2', title: 'Windows Server 2012 R2', maxNdis: NDIS.V6_40 },
  ws2016: { ...BASE, name: 'ws2016', title: 'Windows Server 2016', maxNdis: NDIS.V6_60 },
  win10: { ...BASE, name: 'win10', title: 'Windows 10', maxNvsp: NVSP_VERSION.V6, maxNdis: NDIS.V6_60 },
  ws2019: {
    ...BASE,
    rsc: true,
    udpHash: true,
    name: 'ws2019',
    title: 'Windows Server 2019',
    maxNvsp: NVSP_VERSION.V61,
    maxNdis: NDIS.V6_80,
  },
  ws2022: {
    ...BASE,
    rsc: true,
    udpHash: true,
    name: 'ws2022',
    title: 'Windows Server 2022',
    maxNvsp: NVSP_VERSION.V61,
    maxNdis: NDIS.V6_80,
  },
  azure: {
    ...BASE,
    rsc: true,
    udpHash: true,
    name: 'azure',
    title: 'Azure',
    maxNvsp: NVSP_VERSION.V61,
    maxNdis: NDIS.V6_80,
    linkSpeedBps: 50_000_000_000,
  },
};

export const PROFILE_NAMES = Object.keys(PROFILES) as readonly ProfileName[];

/** The profile of that name. Throws a RangeError that lists the names. */
export function profileNamed(name: string): Profile {
  const profile = Object.hasOwn(PROFILES, name) ? PROFILES[name as ProfileName] : undefined;
  if (!profile) throw new RangeError(`host profile: expected one of ${PROFILE_NAMES.join(', ')}, got ${name}`);
  return profile;
}

/** Whether Init with this version is granted. */
export function grantsNvsp(profile: Profile, version: number): boolean {
  return version <= profile.maxNvsp && ALL_VERSIONS.includes(version);
}
