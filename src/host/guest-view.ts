// What the host sees of a guest's memory by page numbers: mapped where that can be, else copied before each poll, with one
// system call for a burst. A page that can be had neither way fails its message, and nothing else.
import type { Datapath } from '../datapath/datapath.js';
import { type Arena, ArenaError } from '../memory/arena.js';
import { GPA_REGION, HOST_CHANNEL, STAGED_PAGE, STAGING } from '../memory/layout.js';
import type { PageSpan, VmbusOffer } from '../vmbus/device.js';
import type { ChannelMemory } from './channel-memory.js';
import type { NicState } from './state.js';
import type { Subchannels } from './subchannels.js';

/** Messages that one copy is for: about what one poll reads. */
const MESSAGES = 64;
/** Bytes and parts of pages copied at a time: what one system call takes. A message that names more is refused. */
const COPY_BYTES = 512 << 10;
const COPY_PAGES = 1024;
const VECTOR_BYTES = 16;
/** Stretches of memory that are known not to be mappable; the oldest make room for new ones, and are asked for again. */
const KNOWN = 32;
/** Pages that may be asked for before one poll. */
const ASKS = 4;
/** Bursts without anything to copy after which the host no longer looks ahead. */
const PATIENCE = 64;

const AT = STAGING.at;
const PAGE_AT = STAGED_PAGE.at;
const PAGE_WORDS = STAGED_PAGE.bytes >>> 2;

export class GuestView {
  readonly #arena: Arena;
  readonly #u32: Uint32Array;
  readonly #datapath: Datapath;
  readonly #offer: VmbusOffer;
  readonly #primary: ChannelMemory;
  readonly #subchannels: Subchannels;
  /** STAGING, with its tables and the copies behind it; 0 = nothing had to be copied yet. */
  #staging = 0;
  /** Something of the next burst may have to be copied. */
  #copying = false;
  /** The next poll is to fail its first message: looking again could change that. */
  #failing = false;
  /** Bursts since something was copied. */
  #idle = 0;
  /** Place in the table of known stretches that the next one takes. */
  #nextKnown = 0;
  /** What was last looked through: channel, and the read index where that began. */
  #lookedChannel = 0;
  #lookedFrom = 0;
  #copies = 0;
  #copiedBytes = 0;
  #refused = 0;
  #copiedBecause: string | undefined;
  #lastRefusal: string | undefined;

  constructor(arena: Arena, datapath: Datapath, offer: VmbusOffer, primary: ChannelMemory, subchannels: Subchannels) {
    this.#arena = arena;
    this.#u32 = arena.u32;
    this.#datapath = datapath;
    this.#offer = offer;
    this.#primary = primary;
    this.#subchannels = subchannels;
  }

  /** Before each poll of a HOST_CHANNEL: copies what the poll will need. */
  prepare(channel: number): void {
    if (!this.#copying) return;
    if (this.#failing) this.#failing = false;
    else this.#look(channel);
  }

  /** A page that the message next to be read names, and that the poll did not have. False = the message is to fail. */
  miss(channel: number, low: number, high: number): boolean {
    if (this.#ask(low, high)) return true;
    // Looked through already: it did not fit, or the guest has changed it since.
    const inVain = this.#copying && channel === this.#lookedChannel && this.#readIndex(channel) === this.#lookedFrom;
    if (!inVain && this.#reserve()) {
      this.#copying = true;
      this.#idle = 0;
      return true;
    }
    const why = inVain ? `it changes, or has over ${COPY_BYTES} bytes or ${COPY_PAGES} pages` : 'the arena is full';
    this.#failing = true;
    this.#refuse(`${this.#offer.lastRefusal}; the message cannot be copied: ${why}`);
    return false;
  }

  state(): NicState['guestPages'] {
    return {
      regions: this.#primary.get('regionCount'),
      copies: this.#copies,
      copiedBytes: this.#copiedBytes,
      copiedBecause: this.#copiedBecause,
      refused: this.#refused,
      lastRefusal: this.#lastRefusal,
    };
  }

  /** The guest is gone, and what it had. Counters stay. */
  reset(): void {
    this.#copying = false;
    this.#failing = false;
    this.#copiedBecause = undefined;
    this.#primary.set('staging', 0);
    if (this.#staging !== 0) this.#arena.release(this.#staging);
    this.#staging = 0;
  }

  /** True when the page is mapped now, and was not before. */
  #ask(low: number, high: number): boolean {
    const pfn = (BigInt(high) << 32n) | BigInt(low);
    const region = this.#offer.mapGuestPage(pfn);
    if (region && pfn >= region.pfn && pfn < region.pfn + BigInt(region.pages)) {
      if (this.#primary.addRegion(region)) {
        this.#subchannels.shareGuestMemory();
        return true;
      }
      this.#copiedBecause = `page ${pfn.toString(16)}: too many regions are mapped`;
      if (this.#staging !== 0) this.#remember(region);
      return false;
    }
    const { refusedPages, lastRefusal } = this.#offer;
    // Without pages it is no answer for long: the guest's memory map may be read again soon.
    if (!refusedPages) return false;
    this.#copiedBecause = lastRefusal;
    if (this.#staging !== 0) this.#remember(refusedPages);
    return false;
  }

  /** Not to be asked for again soon. */
  #remember({ pfn, pages }: PageSpan): void {
    const at = (this.#get('known') + this.#nextKnown * GPA_REGION.bytes) >>> 2;
    this.#u32[at] = Number(pfn & 0xffff_ffffn);
    this.#u32[at + 1] = Number(pfn >> 32n);
    this.#u32[at + 2] = Math.min(pages, 0xffff_ffff);
    this.#u32[at + 3] = 1;
    this.#set('knownCount', Math.max(this.#get('knownCount'), this.#nextKnown + 1));
    this.#nextKnown = (this.#nextKnown + 1) % KNOWN;
  }

  #look(channel: number): void {
    this.#lookedChannel = channel;
    this.#lookedFrom = this.#readIndex(channel);
    let pages = this.#datapath.hostStage(channel, this.#staging, MESSAGES);
    for (let asked = 0; asked < ASKS && this.#get('unknown') !== 0; asked++) {
      if (!this.#ask(this.#get('unknownLow'), this.#get('unknownHigh'))) break;
      pages = this.#datapath.hostStage(channel, this.#staging, MESSAGES);
    }
    if (pages > 0) {
      this.#idle = 0;
      this.#copy(pages);
    } else if (this.#get('end') !== this.#lookedFrom && ++this.#idle >= PATIENCE) this.#copying = false;
  }

  #copy(pages: number): void {
    const data = this.#get('data');
    const vectors = this.#get('vectors');
    const end = data + this.#get('dataUsed');
    // Each turn begins with a message, which begins with a vector.
    for (let page = 0; page < pages; ) {
      const to = this.#page(page, 'address');
      const vector = this.#page(page, 'vector');
      const from = vectors + vector * VECTOR_BYTES;
      const copied = this.#offer.copyGuest(from, this.#get('vectorCount') - vector, to, end - to);
      this.#copies++;
      if (copied < 0) {
        while (page < pages) page = this.#failMessage(page, pages, this.#offer.lastRefusal);
        return;
      }
      this.#copiedBytes += copied;
      if (copied >= end - to) return;
      while (this.#page(page, 'address') + this.#page(page, 'bytes') <= to + copied) page++;
      page = this.#failMessage(page, pages, this.#whyNot(page));
    }
  }

  /** From this page on, the message's pages cannot be had. Returns the first page of the next message. */
  #failMessage(page: number, pages: number, reason: string): number {
    this.#refuse(reason);
    const message = this.#page(page, 'packet');
    let at = page;
    for (; at < pages && this.#page(at, 'packet') === message; at++) {
      this.#u32[this.#pageAt(at) + (PAGE_AT.address >>> 2)] = 0;
    }
    return at;
  }

  #whyNot(page: number): string {
    const pfn = (BigInt(this.#page(page, 'pfnHigh')) << 32n) | BigInt(this.#page(page, 'pfnLow'));
    const mapped = this.#offer.mapGuestPage(pfn) !== undefined;
    const reason = mapped ? `page ${pfn.toString(16)}: not there before` : this.#offer.lastRefusal;
    return `${reason}; nothing readable is there (pages are numbered by virtual address)`;
  }

  #refuse(reason: string): void {
    this.#refused++;
    this.#lastRefusal = reason;
  }

  /** Makes STAGING and its tables; false = no room. */
  #reserve(): boolean {
    if (this.#staging !== 0) return true;
    const tables = [
      ['known', KNOWN * GPA_REGION.bytes],
      ['pages', COPY_PAGES * STAGED_PAGE.bytes],
      ['vectors', COPY_PAGES * VECTOR_BYTES],
      ['data', COPY_BYTES],
    ] as const;
    const bytes = tables.reduce((sum, [, size]) => sum + size, STAGING.bytes);
    try {
      this.#staging = this.#arena.reserve('copies of guest memory', bytes);
    } catch (error) {
      if (!(error instanceof ArenaError)) throw error;
      return false;
    }
    let at = this.#staging + STAGING.bytes;
    for (const [name, size] of tables) {
      this.#set(name, at);
      at += size;
    }
    this.#set('pageCapacity', COPY_PAGES);
    this.#set('dataBytes', COPY_BYTES);
    this.#nextKnown = 0;
    this.#primary.set('staging', this.#staging);
    this.#subchannels.shareGuestMemory();
    return true;
  }

  #readIndex(channel: number): number {
    return this.#u32[(channel + HOST_CHANNEL.at.readIndex) >>> 2]!;
  }

  #get(cell: keyof typeof AT): number {
    return this.#u32[(this.#staging + AT[cell]) >>> 2]!;
  }

  #set(cell: keyof typeof AT, value: number): void {
    this.#u32[(this.#staging + AT[cell]) >>> 2] = value;
  }

  #pageAt(index: number): number {
    return (this.#get('pages') >>> 2) + index * PAGE_WORDS;
  }

  #page(index: number, cell: keyof typeof PAGE_AT): number {
    return this.#u32[this.#pageAt(index) + (PAGE_AT[cell] >>> 2)]!;
  }
}
