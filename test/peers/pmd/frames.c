/* Single frames, made and judged by the test: all that an mbuf says of them goes over the line. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pmd.h"

#define PATIENCE_MS 10000
#define ANSWER_FRAMES 256

static const struct {
  const char *name;
  uint64_t bit;
} TX_FLAGS[] = {
    {"vlan", RTE_MBUF_F_TX_VLAN},         {"ipv4", RTE_MBUF_F_TX_IPV4},
    {"ipv6", RTE_MBUF_F_TX_IPV6},         {"ipsum", RTE_MBUF_F_TX_IP_CKSUM},
    {"udpsum", RTE_MBUF_F_TX_UDP_CKSUM},  {"tcpsum", RTE_MBUF_F_TX_TCP_CKSUM},
    {"tso", RTE_MBUF_F_TX_TCP_SEG},
};

static const struct {
  const char *name;
  uint64_t mask, value;
} RX_FLAGS[] = {
    {"vlan", RTE_MBUF_F_RX_VLAN, RTE_MBUF_F_RX_VLAN},
    {"stripped", RTE_MBUF_F_RX_VLAN_STRIPPED, RTE_MBUF_F_RX_VLAN_STRIPPED},
    {"hash", RTE_MBUF_F_RX_RSS_HASH, RTE_MBUF_F_RX_RSS_HASH},
    {"ip-good", RTE_MBUF_F_RX_IP_CKSUM_MASK, RTE_MBUF_F_RX_IP_CKSUM_GOOD},
    {"ip-bad", RTE_MBUF_F_RX_IP_CKSUM_MASK, RTE_MBUF_F_RX_IP_CKSUM_BAD},
    {"l4-good", RTE_MBUF_F_RX_L4_CKSUM_MASK, RTE_MBUF_F_RX_L4_CKSUM_GOOD},
    {"l4-bad", RTE_MBUF_F_RX_L4_CKSUM_MASK, RTE_MBUF_F_RX_L4_CKSUM_BAD},
};

struct rte_mbuf *make_chain(const uint8_t *frame, unsigned length, unsigned cut) {
  struct rte_mbuf *head = NULL;
  for (unsigned at = 0; at < length;) {
    struct rte_mbuf *m = rte_pktmbuf_alloc(port.pool);
    if (m) {
      unsigned room = rte_pktmbuf_tailroom(m), piece = length - at;
      if (cut && cut < room) room = cut;
      if (piece > room) piece = room;
      memcpy(rte_pktmbuf_append(m, (uint16_t)piece), frame + at, piece);
      at += piece;
      if (!head) {
        head = m;
        continue;
      }
      if (rte_pktmbuf_chain(head, m) == 0) continue;
      rte_pktmbuf_free(m);
    }
    rte_pktmbuf_free(head);
    return NULL;
  }
  return head;
}

static int read_flags(const char *text, uint64_t *flags) {
  while (*text) {
    size_t length = strcspn(text, ",");
    unsigned i = 0;
    while (i < RTE_DIM(TX_FLAGS) && (strlen(TX_FLAGS[i].name) != length || strncmp(TX_FLAGS[i].name, text, length))) i++;
    if (i == RTE_DIM(TX_FLAGS)) return -EINVAL;
    *flags |= TX_FLAGS[i].bit;
    text += length + (text[length] == ',');
  }
  return 0;
}

/* transmit hex= flags=a,b [queue=] [l2= l3= l4= mss=] [tci=] [cut=] [times=] */
int transmit(const struct words *words) {
  static uint8_t frame[MAX_FRAME];
  const char *hex = text_of(words, "hex");
  unsigned length = 0;
  uint64_t flags = 0, times = number_of(words, "times", 1), deadline = deadline_after(PATIENCE_MS);
  int error = read_flags(text_of(words, "flags"), &flags);
  while (length < MAX_FRAME && sscanf(hex + 2 * length, "%2hhx", &frame[length]) == 1) length++;
  if (error < 0 || hex[2 * length]) return -EINVAL;
  for (uint64_t sent = 0; sent < times;) {
    struct rte_mbuf *m = make_chain(frame, length, (unsigned)number_of(words, "cut", 0));
    if (!m) return -ENOBUFS;
    m->ol_flags = flags;
    m->vlan_tci = (uint16_t)number_of(words, "tci", 0);
    m->l2_len = number_of(words, "l2", 0);
    m->l3_len = number_of(words, "l3", 0);
    m->l4_len = number_of(words, "l4", 0);
    m->tso_segsz = (uint16_t)number_of(words, "mss", 0);
    if (rte_eth_tx_burst(port.id, (uint16_t)number_of(words, "queue", 0), &m, 1) == 1) sent++;
    else rte_pktmbuf_free(m);
    if (passed(deadline)) return -ETIMEDOUT;
  }
  return 0;
}

static void print_frame(struct rte_mbuf *m, uint16_t queue, bool first) {
  bool comma = false;
  printf("%s{\"queue\":%u,\"segments\":%u,\"type\":%" PRIu32 ",\"tci\":%u,\"hash\":%" PRIu32 ",\"flags\":[", first ? "" : ",",
         queue, m->nb_segs, m->packet_type, m->vlan_tci, m->hash.rss);
  for (unsigned i = 0; i < RTE_DIM(RX_FLAGS); i++)
    if ((m->ol_flags & RX_FLAGS[i].mask) == RX_FLAGS[i].value) {
      printf("%s\"%s\"", comma ? "," : "", RX_FLAGS[i].name);
      comma = true;
    }
  printf("],\"hex\":\"");
  for (struct rte_mbuf *s = m; s; s = s->next)
    for (uint16_t i = 0; i < s->data_len; i++) printf("%02x", rte_pktmbuf_mtod(s, uint8_t *)[i]);
  printf("\"}");
}

/* receive count= [ms=]: the frames themselves, at most so many, and those that come within that time. */
int receive(const struct words *words) {
  uint64_t count = number_of(words, "count", 1), got = 0;
  uint64_t deadline = deadline_after(number_of(words, "ms", PATIENCE_MS));
  if (count > ANSWER_FRAMES) return -EINVAL;
  printf(",\"frames\":[");
  bool found;
  do {
    found = false;
    for (uint16_t q = 0; q < port.rx_queues && got < count; q++) {
      struct rte_mbuf *m;
      if (rte_eth_rx_burst(port.id, q, &m, 1) == 0) continue;
      print_frame(m, q, got++ == 0);
      rte_pktmbuf_free(m);
      found = true;
    }
    /* What lies there is taken, however late it has become. */
  } while (got < count && (found || !passed(deadline)));
  printf("]");
  return 0;
}
