/* Much traffic, made and checked here: UDP to port 7 of an echo station, in one flow with every byte checked, or in many
 * flows with every hash checked against DPDK's own software Toeplitz. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <rte_thash.h>
#include <rte_udp.h>

#include "pmd.h"

#define WINDOW 256
#define BURST 32
#define PATIENCE_MS 10000
#define KEY_BYTES 40
#define TABLE 128
#define HEADERS (sizeof(struct rte_ether_hdr) + sizeof(struct rte_ipv4_hdr) + sizeof(struct rte_udp_hdr))

/* Who talks: addresses in network order. */
struct plan {
  struct rte_ether_addr target_mac;
  uint32_t source, target;
  unsigned shortest, longest, cut;
};

static int read_plan(const struct words *words, struct plan *plan) {
  if (rte_ether_unformat_addr(text_of(words, "mac"), &plan->target_mac) < 0) return -EINVAL;
  plan->source = inet_addr(text_of(words, "source"));
  plan->target = inet_addr(text_of(words, "target"));
  plan->shortest = (unsigned)number_of(words, "shortest", 64);
  plan->longest = (unsigned)number_of(words, "longest", plan->shortest);
  plan->cut = (unsigned)number_of(words, "cut", 0);
  bool sizes = plan->shortest >= HEADERS + 8 && plan->longest >= plan->shortest && plan->longest <= MAX_FRAME;
  return sizes && port.rx_queues > 0 ? 0 : -EINVAL;
}

static unsigned length_of(const struct plan *plan, uint64_t sequence) {
  return plan->shortest + (unsigned)(sequence * 37 % (plan->longest - plan->shortest + 1));
}

static uint8_t payload_byte(uint64_t sequence, unsigned at) { return (uint8_t)(sequence * 131 + at * 7 + (at >> 8)); }

static struct rte_mbuf *make(const struct plan *plan, uint64_t sequence, uint32_t source, uint16_t source_port) {
  static uint8_t frame[MAX_FRAME];
  unsigned length = length_of(plan, sequence), bytes = length - HEADERS;
  struct rte_ether_hdr *ether = (struct rte_ether_hdr *)frame;
  struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(ether + 1);
  struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(ip + 1);
  uint8_t *payload = (uint8_t *)(udp + 1);
  rte_ether_addr_copy(&plan->target_mac, &ether->dst_addr);
  rte_ether_addr_copy(&port.mac, &ether->src_addr);
  ether->ether_type = htons(RTE_ETHER_TYPE_IPV4);
  memset(ip, 0, sizeof *ip);
  ip->version_ihl = RTE_IPV4_VHL_DEF;
  ip->total_length = htons((uint16_t)(length - sizeof *ether));
  ip->time_to_live = 64;
  ip->next_proto_id = IPPROTO_UDP;
  ip->src_addr = source;
  ip->dst_addr = plan->target;
  ip->hdr_checksum = rte_ipv4_cksum(ip);
  udp->src_port = htons(source_port);
  udp->dst_port = htons(7);
  udp->dgram_len = htons((uint16_t)(sizeof *udp + bytes));
  udp->dgram_cksum = 0;
  memcpy(payload, &sequence, sizeof sequence);
  for (unsigned i = sizeof sequence; i < bytes; i++) payload[i] = payload_byte(sequence, i);
  udp->dgram_cksum = rte_ipv4_udptcp_cksum(ip, udp);
  return make_chain(frame, length, plan->cut);
}

/* The answer to `expected`, byte for byte: 0 = some other frame, 1 = right, -1 = altered. */
static int check(const struct plan *plan, struct rte_mbuf *m, uint64_t expected) {
  struct rte_ether_hdr *ether = rte_pktmbuf_mtod(m, struct rte_ether_hdr *);
  struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(ether + 1);
  struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(ip + 1);
  const uint8_t *payload = (const uint8_t *)(udp + 1);
  uint64_t sequence;
  if (m->data_len < HEADERS || ether->ether_type != htons(RTE_ETHER_TYPE_IPV4) || ip->next_proto_id != IPPROTO_UDP)
    return 0;
  memcpy(&sequence, payload, sizeof sequence);
  unsigned length = length_of(plan, sequence);
  if (sequence != expected || m->pkt_len != length || m->data_len != length) return -1;
  if (ip->src_addr != plan->target || ip->dst_addr != plan->source) return -1;
  if (!rte_is_same_ether_addr(&ether->dst_addr, &port.mac)) return -1;
  for (unsigned i = sizeof sequence; i < length - HEADERS; i++)
    if (payload[i] != payload_byte(sequence, i)) return -1;
  return 1;
}

/* Sends [from, from + count) on queue 0 and waits for the answers, which come in order. Returns how many came. */
static uint64_t window(const struct plan *plan, uint64_t from, unsigned count, uint64_t ms, uint64_t *altered) {
  struct rte_mbuf *out[WINDOW], *in[BURST];
  unsigned made = 0, sent = 0, back = 0;
  uint64_t deadline = deadline_after(ms);
  while (made < count && (out[made] = make(plan, from + made, plan->source, 4000))) made++;
  while (back < made && !passed(deadline)) {
    if (sent < made) sent += rte_eth_tx_burst(port.id, 0, out + sent, (uint16_t)(made - sent));
    for (uint16_t q = 0; q < port.rx_queues; q++) {
      unsigned got = rte_eth_rx_burst(port.id, q, in, BURST);
      for (unsigned i = 0; i < got; i++) {
        int right = back < made ? check(plan, in[i], from + back) : -1;
        if (right != 0) back++;
        if (right < 0) *altered += 1;
        rte_pktmbuf_free(in[i]);
      }
    }
  }
  while (sent < made) rte_pktmbuf_free(out[sent++]);
  return back;
}

/* ping mac= source= target= [count=, 0 = for ever] [shortest= longest=] [cut=] [cycles=] [ms=]: the port is stopped and
 * started `cycles` times on the way. It ends when an answer is wrong, or does not come for `ms`. */
int ping(const struct words *words) {
  struct plan plan;
  int error = read_plan(words, &plan);
  uint64_t count = number_of(words, "count", 0), cycles = number_of(words, "cycles", 0);
  uint64_t ms = number_of(words, "ms", PATIENCE_MS), step = cycles ? count / cycles : 0, next = step, done = 0, lost = 0, altered = 0;
  while (error == 0 && (count == 0 || done < count) && !lost && !altered) {
    unsigned n = count == 0 || count - done > WINDOW ? WINDOW : (unsigned)(count - done);
    uint64_t back = window(&plan, done, n, ms, &altered);
    done += n;
    lost = n > back ? n - back : 0;
    if (step && done >= next) {
      next += step;
      error = rte_eth_dev_stop(port.id);
      if (error == 0) error = rte_eth_dev_start(port.id);
    }
  }
  printf(",\"done\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"altered\":%" PRIu64, done, lost, altered);
  return error;
}

/* What came in, by queue, and what is known of the frames' hashes. */
struct account {
  uint64_t queues[MAX_QUEUES], hashed, wrong, astray, unhashed;
  uint8_t key[KEY_BYTES];
  uint64_t types;
  struct rte_eth_rss_reta_entry64 table[TABLE / RTE_ETH_RETA_GROUP_SIZE];
};

/* What the driver set: keys and types of hashes, and the table. Without scaling there are none. */
static void read_scaling(struct account *account) {
  struct rte_eth_rss_conf conf = {.rss_key = account->key, .rss_key_len = KEY_BYTES};
  if (port.rx_queues < 2 || rte_eth_dev_rss_hash_conf_get(port.id, &conf) < 0) return;
  account->types = conf.rss_hf;
  for (unsigned i = 0; i < RTE_DIM(account->table); i++) account->table[i].mask = UINT64_MAX;
  if (rte_eth_dev_rss_reta_query(port.id, account->table, TABLE) < 0) account->types = 0;
}

/* NDIS knows TCP's ports only; other packets are hashed by their addresses. False: it is not hashed. */
static bool toeplitz(const struct account *account, struct rte_mbuf *m, uint32_t *hash) {
  union rte_thash_tuple tuple = {0};
  struct rte_ether_hdr *ether = rte_pktmbuf_mtod(m, struct rte_ether_hdr *);
  struct rte_tcp_hdr *tcp = NULL;
  unsigned words;
  uint16_t sport, dport;
  if (ether->ether_type == htons(RTE_ETHER_TYPE_IPV4)) {
    struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(ether + 1);
    if (ip->next_proto_id == IPPROTO_TCP && (account->types & RTE_ETH_RSS_NONFRAG_IPV4_TCP))
      tcp = (struct rte_tcp_hdr *)((uint8_t *)ip + rte_ipv4_hdr_len(ip));
    if (!tcp && !(account->types & RTE_ETH_RSS_IPV4)) return false;
    tuple.v4.src_addr = ntohl(ip->src_addr);
    tuple.v4.dst_addr = ntohl(ip->dst_addr);
    words = RTE_THASH_V4_L3_LEN;
  } else if (ether->ether_type == htons(RTE_ETHER_TYPE_IPV6)) {
    struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)(ether + 1);
    if (ip->proto == IPPROTO_TCP && (account->types & RTE_ETH_RSS_NONFRAG_IPV6_TCP))
      tcp = (struct rte_tcp_hdr *)(ip + 1);
    if (!tcp && !(account->types & RTE_ETH_RSS_IPV6)) return false;
    rte_thash_load_v6_addrs(ip, &tuple);
    words = RTE_THASH_V6_L3_LEN;
  } else
    return false;
  if (tcp) {
    sport = ntohs(tcp->src_port);
    dport = ntohs(tcp->dst_port);
    if (words == RTE_THASH_V4_L3_LEN) tuple.v4.sport = sport, tuple.v4.dport = dport;
    else tuple.v6.sport = sport, tuple.v6.dport = dport;
    words++;
  }
  *hash = rte_softrss((uint32_t *)&tuple, words, account->key);
  return true;
}

static void count_frame(struct account *account, struct rte_mbuf *m, uint16_t queue) {
  uint32_t hash;
  account->queues[queue]++;
  if (!account->types || !toeplitz(account, m, &hash)) {
    if (m->ol_flags & RTE_MBUF_F_RX_RSS_HASH) account->wrong++;
    else account->unhashed++;
    return;
  }
  unsigned entry = hash % TABLE;
  account->hashed++;
  if (!(m->ol_flags & RTE_MBUF_F_RX_RSS_HASH) || m->hash.rss != hash) account->wrong++;
  if (account->table[entry / RTE_ETH_RETA_GROUP_SIZE].reta[entry % RTE_ETH_RETA_GROUP_SIZE] != queue) account->astray++;
}

static uint64_t take(struct account *account) {
  struct rte_mbuf *in[BURST];
  uint64_t frames = 0;
  for (uint16_t q = 0; q < port.rx_queues; q++) {
    unsigned got = rte_eth_rx_burst(port.id, q, in, BURST);
    for (unsigned i = 0; i < got; i++) {
      count_frame(account, in[i], q);
      rte_pktmbuf_free(in[i]);
    }
    frames += got;
  }
  return frames;
}

/* Hash right = `hashed` less `wrong`; `astray`: came on another queue than the table says. */
static void print_account(const struct account *account) {
  printf(",\"hashed\":%" PRIu64 ",\"unhashed\":%" PRIu64 ",\"wrong\":%" PRIu64 ",\"astray\":%" PRIu64 ",\"queues\":[",
         account->hashed, account->unhashed, account->wrong, account->astray);
  for (uint16_t q = 0; q < port.rx_queues; q++) printf("%s%" PRIu64, q ? "," : "", account->queues[q]);
  printf("]");
}

/* flows mac= source= target= count= flows= [shortest= longest=]: `count` questions from as many source addresses as there are
 * flows, on all transmit queues in turn, and their answers. */
int flows(const struct words *words) {
  struct plan plan;
  struct account account = {0};
  int error = read_plan(words, &plan);
  uint64_t count = number_of(words, "count", 0), flows = number_of(words, "flows", 1), sent = 0, back = 0;
  uint64_t deadline = deadline_after(PATIENCE_MS);
  if (error < 0 || flows == 0) return error < 0 ? error : -EINVAL;
  read_scaling(&account);
  while (back < count && !passed(deadline)) {
    if (sent < count && sent - back < WINDOW) {
      uint32_t flow = (uint32_t)(sent % flows);
      struct rte_mbuf *m = make(&plan, sent, htonl(ntohl(plan.source) + flow), (uint16_t)(4000 + flow));
      if (!m) return -ENOBUFS;
      while (rte_eth_tx_burst(port.id, (uint16_t)(sent % port.tx_queues), &m, 1) == 0 && !passed(deadline))
        back += take(&account);
      sent++;
    }
    back += take(&account);
  }
  printf(",\"sent\":%" PRIu64 ",\"received\":%" PRIu64, sent, back);
  print_account(&account);
  return 0;
}

/* collect count= [ms=]: takes what somebody else sends. */
int collect(const struct words *words) {
  struct account account = {0};
  uint64_t count = number_of(words, "count", 1), got = 0;
  uint64_t deadline = deadline_after(number_of(words, "ms", PATIENCE_MS));
  read_scaling(&account);
  uint64_t found = 0;
  /* What lies there is taken, however late it has become. */
  while (got < count && (found || !passed(deadline))) got += found = take(&account);
  printf(",\"received\":%" PRIu64, got);
  print_account(&account);
  return 0;
}
