// Looks through the packets that the next poll will read, for what has to be copied out of the guest before it: one system
// call then serves a burst. Says nothing about what is wrong with a packet: that is found by the poll, in its turn.
import { collectStaged, leaveStaged } from './gpa';
import * as L from './generated';
import { CORRUPT, MISSING, readRanges, resetPieces } from './pieces';
import { nextPacket, packetAt, packetBytes, packetData, packetNext, packetType, readLimit } from './ring';

function forgive(ch: u32): void {
  store<u32>(ch, L.RING_ERROR_NONE, L.CHANNEL_END_RING_ERROR);
  store<u32>(ch, 0, L.CHANNEL_END_RING_ERROR_DETAIL);
}

/** A data message whose ranges a poll would look at. */
function isDirect(ch: u32): bool {
  if (packetType != 9 || load<u32>(ch, L.HOST_CHANNEL_READY) == 0) return false;
  return packetBytes - packetData >= 16 && load<u32>(packetAt + packetData) == 107;
}

export function hostStage(ch: u32, staging: u32, max: u32): u32 {
  if (load<u32>(ch, L.CHANNEL_END_RING_ERROR) != 0) return 0;
  const write = readLimit(ch);
  let read = load<u32>(ch, L.CHANNEL_END_READ_INDEX);
  let messages: u32 = 0;
  collectStaged(staging);
  while (read != write && messages < max) {
    if (!nextPacket(ch, read, write)) {
      forgive(ch);
      read = write;
      break;
    }
    const next = packetNext;
    if (packetType != 11) messages++;
    if (isDirect(ch)) {
      const pages = load<u32>(staging, L.STAGING_PAGE_COUNT);
      const vectors = load<u32>(staging, L.STAGING_VECTOR_COUNT);
      const used = load<u32>(staging, L.STAGING_DATA_USED);
      resetPieces();
      const result = readRanges(ch);
      if (result == CORRUPT || result == MISSING) {
        store<u32>(staging, pages, L.STAGING_PAGE_COUNT);
        store<u32>(staging, vectors, L.STAGING_VECTOR_COUNT);
        store<u32>(staging, used, L.STAGING_DATA_USED);
      }
      if (result == CORRUPT) {
        forgive(ch);
        read = write;
        break;
      }
      // No room for it, unless it comes first. If that is not enough, the poll reports its page as missing.
      if (result == MISSING && pages != 0) break;
    }
    read = next;
  }
  leaveStaged();
  store<u32>(staging, read, L.STAGING_END);
  store<u32>(staging, ch, L.STAGING_CHANNEL);
  return load<u32>(staging, L.STAGING_PAGE_COUNT);
}
