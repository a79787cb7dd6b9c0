// Received frames that stay where the host wrote them: mbufs show the receive buffer, and the transfer-page packet is completed
// when the last of them is freed, in whatever thread that is. The host can still write there (facts/dpdk.md 2.11, 5).
import * as L from './generated';
import { externalDropMany, take } from './pool';
import { count } from './ring';

/** References of a loan while its packet is being delivered, so that no frame needs an atomic of its own: more than there are
 *  frames. endLoan() takes back those that no frame got. */
const HELD: u32 = 0x40000000;

/** An mbuf that shows the frame, or 0: it is to be copied. */
export function lend(q: u32, from: u32, bytes: u32): u32 {
  let loan = load<u32>(q, L.GUEST_QUEUE_LOAN);
  const pool = load<u32>(q, L.GUEST_QUEUE_RX_POOL);
  if (loan == 0) {
    const ranges = load<u32>(q, L.GUEST_QUEUE_RANGE_COUNT);
    const free = load<u32>(q, L.GUEST_QUEUE_FREE_LOAN_COUNT);
    if (free == 0 || load<u32>(q, L.GUEST_QUEUE_LENT) + ranges > load<u32>(q, L.GUEST_QUEUE_LEND_MOST) || pool == 0) return 0;
    loan = load<u32>(load<u32>(q, L.GUEST_QUEUE_FREE_LOANS) + ((free - 1) << 2));
    store<u32>(q, free - 1, L.GUEST_QUEUE_FREE_LOAN_COUNT);
    store<u32>(q, load<u32>(q, L.GUEST_QUEUE_LENT) + ranges, L.GUEST_QUEUE_LENT);
    store<u32>(loan, HELD, L.LOAN_REFERENCES);
    store<u32>(loan, 0, L.LOAN_FRAMES);
    store<u32>(loan, q + L.GUEST_QUEUE_RETURNED_LOANS, L.LOAN_OWNER);
    store<u32>(loan, ranges, L.LOAN_RANGES);
    store<u32>(q, loan, L.GUEST_QUEUE_LOAN);
  }
  const mbuf = take(pool);
  if (mbuf == 0) return 0;
  store<u32>(loan, load<u32>(loan, L.LOAN_FRAMES) + 1, L.LOAN_FRAMES);
  store<u32>(mbuf, loan, L.MBUF_BORROWED);
  store<u32>(mbuf, from, L.MBUF_BUFFER);
  store<u32>(mbuf, bytes, L.MBUF_ROOM);
  store<u32>(mbuf, from, L.MBUF_DATA);
  store<u32>(mbuf, bytes, L.MBUF_DATA_LENGTH);
  store<u32>(mbuf, bytes, L.MBUF_PACKET_LENGTH);
  count(q + L.GUEST_QUEUE_RX_LENT, 1);
  return mbuf;
}

/** The transfer-page packet at hand is delivered. True: its completion is the loan's business. */
export function endLoan(q: u32): bool {
  const loan = load<u32>(q, L.GUEST_QUEUE_LOAN);
  if (loan == 0) return false;
  store<u32>(q, 0, L.GUEST_QUEUE_LOAN);
  store<u32>(loan, load<u32>(q, L.GUEST_QUEUE_RANGE_ID_LOW), L.LOAN_ID_LOW);
  store<u32>(loan, load<u32>(q, L.GUEST_QUEUE_RANGE_ID_HIGH), L.LOAN_ID_HIGH);
  store<u32>(loan, load<u32>(q, L.GUEST_QUEUE_RANGE_STATUS), L.LOAN_STATUS);
  externalDropMany(loan, HELD - load<u32>(loan, L.LOAN_FRAMES));
  return true;
}

/** The next loan that came back and whose completion is to be sent, or 0. It can be lent again from then on. */
export function takeReturned(q: u32): u32 {
  let loan = load<u32>(q, L.GUEST_QUEUE_WAITING_LOANS);
  if (loan == 0) {
    if (atomic.load<u32>(q, L.GUEST_QUEUE_RETURNED_LOANS) == 0) return 0;
    loan = atomic.xchg<u32>(q + L.GUEST_QUEUE_RETURNED_LOANS, 0);
  }
  store<u32>(q, load<u32>(loan, L.LOAN_NEXT), L.GUEST_QUEUE_WAITING_LOANS);
  store<u32>(q, load<u32>(q, L.GUEST_QUEUE_LENT) - load<u32>(loan, L.LOAN_RANGES), L.GUEST_QUEUE_LENT);
  const free = load<u32>(q, L.GUEST_QUEUE_FREE_LOAN_COUNT);
  store<u32>(load<u32>(q, L.GUEST_QUEUE_FREE_LOANS) + (free << 2), loan);
  store<u32>(q, free + 1, L.GUEST_QUEUE_FREE_LOAN_COUNT);
  return loan;
}
