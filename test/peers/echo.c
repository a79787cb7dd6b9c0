/* Somebody else's guest that works for others: DPDK's net_netvsc, one queue, until it is killed.
 *   echo [EAL options] -- echo            every frame goes back to where it came from, otherwise unchanged
 *   echo [EAL options] -- flood MAC BYTES frames of that many bytes, as many as the ring takes
 * Prints a line of JSON when it has started. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_mbuf.h>

#define BURST 32

static volatile sig_atomic_t ended;
static uint16_t port;
static struct rte_mempool *pool;

static void fail(const char *what, int code) {
  fprintf(stderr, "echo: %s: %s\n", what, rte_strerror(code < 0 ? -code : code));
  exit(2);
}

static void end(int number) {
  (void)number;
  ended = 1;
}

static void turn(struct rte_mbuf *m) {
  struct rte_ether_hdr *ether = rte_pktmbuf_mtod(m, struct rte_ether_hdr *);
  struct rte_ether_addr from = ether->src_addr;
  ether->src_addr = ether->dst_addr;
  ether->dst_addr = from;
}

static void transmit(struct rte_mbuf **list, uint16_t count) {
  uint16_t sent = 0;
  while (sent < count && !ended) sent += rte_eth_tx_burst(port, 0, list + sent, count - sent);
  while (sent < count) rte_pktmbuf_free(list[sent++]);
}

static uint16_t make(struct rte_mbuf **list, const struct rte_ether_addr *from, const struct rte_ether_addr *to, uint16_t bytes) {
  if (rte_pktmbuf_alloc_bulk(pool, list, BURST) < 0) return 0;
  for (unsigned i = 0; i < BURST; i++) {
    struct rte_ether_hdr *ether = (struct rte_ether_hdr *)rte_pktmbuf_append(list[i], bytes);
    memset(ether, 0x5a, bytes);
    ether->src_addr = *from;
    ether->dst_addr = *to;
    ether->ether_type = rte_cpu_to_be_16(0x88b5);
  }
  return BURST;
}

int main(int argc, char **argv) {
  struct rte_mbuf *list[BURST];
  struct rte_ether_addr own, target;
  struct rte_eth_conf conf = {0};
  int used = rte_eal_init(argc, argv);
  if (used < 0) fail("EAL", rte_errno);
  argc -= used;
  argv += used;
  int flood = argc == 4 && strcmp(argv[1], "flood") == 0;
  if (!flood && !(argc == 2 && strcmp(argv[1], "echo") == 0)) fail("expected echo, or flood MAC BYTES", EINVAL);
  if (flood && rte_ether_unformat_addr(argv[2], &target) < 0) fail(argv[2], EINVAL);
  uint16_t bytes = flood ? (uint16_t)atoi(argv[3]) : 0;
  if (rte_eth_dev_count_avail() == 0) fail("no port", ENODEV);
  port = (uint16_t)rte_eth_find_next(0);
  pool = rte_pktmbuf_pool_create("packets", 4096, 128, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
  if (!pool) fail("packet pool", rte_errno);
  int error = rte_eth_dev_configure(port, 1, 1, &conf);
  if (error == 0) error = rte_eth_tx_queue_setup(port, 0, 512, SOCKET_ID_ANY, NULL);
  if (error == 0) error = rte_eth_rx_queue_setup(port, 0, 512, SOCKET_ID_ANY, NULL, pool);
  if (error == 0) error = rte_eth_dev_start(port);
  if (error < 0) fail("start", error);
  rte_eth_macaddr_get(port, &own);
  signal(SIGTERM, end);
  printf("{\"type\":\"started\"}\n");
  fflush(stdout);
  while (!ended) {
    uint16_t got = rte_eth_rx_burst(port, 0, list, BURST);
    if (flood) {
      rte_pktmbuf_free_bulk(list, got);
      got = make(list, &own, &target, bytes);
    } else
      for (uint16_t i = 0; i < got; i++) turn(list[i]);
    transmit(list, got);
  }
  rte_eth_dev_stop(port);
  rte_eth_dev_close(port);
  rte_eal_cleanup();
  return 0;
}
