/* A guest of somebody else's making: DPDK's net_netvsc, one queue. Sends UDP to port 7 of an echo station, window by
 * window, and checks every byte that comes back.
 *   pmd [EAL options] -- MAC SOURCE-IP TARGET-IP COUNT SHORTEST LONGEST CYCLES
 * Frame lengths go round from SHORTEST to LONGEST; the port is stopped and started CYCLES times on the way. COUNT 0: for
 * ever. Prints a line of JSON when traffic starts, and one at the end. Exit code 1: something was lost or altered. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_udp.h>

#define WINDOW 64
#define BURST 32
#define PATIENCE_SECONDS 10
#define HEADERS (sizeof(struct rte_ether_hdr) + sizeof(struct rte_ipv4_hdr) + sizeof(struct rte_udp_hdr))

static uint16_t port;
static struct rte_mempool *pool;
static struct rte_ether_addr target_mac, own_mac;
static uint32_t source, target;
static unsigned shortest, longest;

static void fail(const char *what, int code) {
  fprintf(stderr, "pmd: %s: %s\n", what, rte_strerror(code < 0 ? -code : code));
  exit(2);
}

static unsigned length_of(uint64_t sequence) { return shortest + (unsigned)(sequence * 37 % (longest - shortest + 1)); }

static uint8_t payload_byte(uint64_t sequence, unsigned at) { return (uint8_t)(sequence * 131 + at * 7 + (at >> 8)); }

static struct rte_mbuf *make(uint64_t sequence) {
  struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
  unsigned length = length_of(sequence);
  if (!m) return NULL;
  struct rte_ether_hdr *ether = (struct rte_ether_hdr *)rte_pktmbuf_append(m, (uint16_t)length);
  struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(ether + 1);
  struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(ip + 1);
  uint8_t *payload = (uint8_t *)(udp + 1);
  unsigned bytes = length - HEADERS;
  rte_ether_addr_copy(&target_mac, &ether->dst_addr);
  rte_ether_addr_copy(&own_mac, &ether->src_addr);
  ether->ether_type = htons(RTE_ETHER_TYPE_IPV4);
  memset(ip, 0, sizeof *ip);
  ip->version_ihl = RTE_IPV4_VHL_DEF;
  ip->total_length = htons((uint16_t)(length - sizeof *ether));
  ip->time_to_live = 64;
  ip->next_proto_id = IPPROTO_UDP;
  ip->src_addr = source;
  ip->dst_addr = target;
  ip->hdr_checksum = rte_ipv4_cksum(ip);
  udp->src_port = htons(4000);
  udp->dst_port = htons(7);
  udp->dgram_len = htons((uint16_t)(sizeof *udp + bytes));
  udp->dgram_cksum = 0;
  memcpy(payload, &sequence, sizeof sequence);
  for (unsigned i = sizeof sequence; i < bytes; i++) payload[i] = payload_byte(sequence, i);
  udp->dgram_cksum = rte_ipv4_udptcp_cksum(ip, udp);
  return m;
}

/* The answer to `sequence`, byte for byte; 0 = some other frame, 1 = right, -1 = altered. */
static int check(struct rte_mbuf *m, uint64_t expected) {
  struct rte_ether_hdr *ether = rte_pktmbuf_mtod(m, struct rte_ether_hdr *);
  struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(ether + 1);
  struct rte_udp_hdr *udp = (struct rte_udp_hdr *)(ip + 1);
  const uint8_t *payload = (const uint8_t *)(udp + 1);
  uint64_t sequence;
  if (m->data_len < HEADERS || ether->ether_type != htons(RTE_ETHER_TYPE_IPV4) || ip->next_proto_id != IPPROTO_UDP)
    return 0;
  memcpy(&sequence, payload, sizeof sequence);
  unsigned length = length_of(sequence);
  if (sequence != expected || m->pkt_len != length || m->data_len != length) return -1;
  if (ip->src_addr != target || ip->dst_addr != source || !rte_is_same_ether_addr(&ether->dst_addr, &own_mac)) return -1;
  for (unsigned i = sizeof sequence; i < length - HEADERS; i++)
    if (payload[i] != payload_byte(sequence, i)) return -1;
  return 1;
}

static uint64_t altered;

/* Sends [from, from + count) and waits for the answers, which come in order. */
static uint64_t window(uint64_t from, unsigned count) {
  struct rte_mbuf *out[WINDOW], *in[BURST];
  unsigned sent = 0, back = 0;
  uint64_t deadline = rte_get_timer_cycles() + PATIENCE_SECONDS * rte_get_timer_hz();
  for (unsigned i = 0; i < count; i++)
    if (!(out[i] = make(from + i))) fail("no buffer", ENOBUFS);
  while (back < count && rte_get_timer_cycles() < deadline) {
    if (sent < count) sent += rte_eth_tx_burst(port, 0, out + sent, (uint16_t)(count - sent));
    unsigned got = rte_eth_rx_burst(port, 0, in, BURST);
    for (unsigned i = 0; i < got; i++) {
      int right = check(in[i], from + back);
      if (right != 0) back++;
      if (right < 0) altered++;
      rte_pktmbuf_free(in[i]);
    }
  }
  while (sent < count) rte_pktmbuf_free(out[sent++]);
  return back;
}

static void start(void) {
  int error = rte_eth_dev_start(port);
  if (error < 0) fail("start", error);
}

int main(int argc, char **argv) {
  int used = rte_eal_init(argc, argv);
  if (used < 0) fail("EAL", rte_errno);
  argc -= used;
  argv += used;
  if (argc != 8) fail("expected MAC SOURCE TARGET COUNT SHORTEST LONGEST CYCLES", EINVAL);
  if (rte_ether_unformat_addr(argv[1], &target_mac) < 0) fail(argv[1], EINVAL);
  source = inet_addr(argv[2]);
  target = inet_addr(argv[3]);
  uint64_t count = strtoull(argv[4], NULL, 10);
  shortest = (unsigned)atoi(argv[5]);
  longest = (unsigned)atoi(argv[6]);
  unsigned cycles = (unsigned)atoi(argv[7]);
  if (shortest < HEADERS + 8 || longest < shortest || longest > RTE_ETHER_MTU + RTE_ETHER_HDR_LEN) fail("lengths", EINVAL);
  if (rte_eth_dev_count_avail() == 0) fail("no port", ENODEV);
  port = (uint16_t)rte_eth_find_next(0);

  pool = rte_pktmbuf_pool_create("packets", 4096, 128, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
  if (!pool) fail("packet pool", rte_errno);
  struct rte_eth_conf conf = {0};
  int error = rte_eth_dev_configure(port, 1, 1, &conf);
  if (error == 0) error = rte_eth_tx_queue_setup(port, 0, 512, SOCKET_ID_ANY, NULL);
  if (error == 0) error = rte_eth_rx_queue_setup(port, 0, 512, SOCKET_ID_ANY, NULL, pool);
  if (error < 0) fail("configure", error);
  rte_eth_macaddr_get(port, &own_mac);
  start();
  printf("{\"type\":\"started\"}\n");
  fflush(stdout);

  uint64_t done = 0, lost = 0, next_stop = 0;
  uint64_t step = cycles ? count / cycles : 0;
  while (count == 0 || done < count) {
    if (step && done >= next_stop && done > 0) {
      error = rte_eth_dev_stop(port);
      if (error < 0) fail("stop", error);
      start();
    }
    if (step && done >= next_stop) next_stop += step;
    unsigned n = count == 0 || count - done > WINDOW ? WINDOW : (unsigned)(count - done);
    uint64_t back = window(done, n);
    done += n;
    lost += n - back;
    if (lost || altered) break;
  }
  struct rte_eth_stats stats;
  rte_eth_stats_get(port, &stats);
  printf("{\"type\":\"ended\",\"done\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"altered\":%" PRIu64 ",\"opackets\":%" PRIu64
         ",\"obytes\":%" PRIu64 ",\"ipackets\":%" PRIu64 ",\"ibytes\":%" PRIu64 ",\"oerrors\":%" PRIu64
         ",\"ierrors\":%" PRIu64 ",\"imissed\":%" PRIu64 "}\n",
         done, lost, altered, stats.opackets, stats.obytes, stats.ipackets, stats.ibytes, stats.oerrors, stats.ierrors,
         stats.imissed);
  fflush(stdout);
  rte_eth_dev_stop(port);
  rte_eth_dev_close(port);
  rte_eal_cleanup();
  return lost || altered ? 1 : 0;
}
