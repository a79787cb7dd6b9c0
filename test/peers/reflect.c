/* DPDK's net_netvsc as a mirror: sends back every frame, source and destination swapped, from its own memory.
 *   reflect [EAL options]
 *   reflect [EAL options] -- MAC BYTES    no mirror: sends frames of that length to that address, as fast as it can
 * Prints "started" and runs until it is killed. dpdk-testpmd cannot be taken for this: in 22.11 it forwards on no queue of
 * a driver that does not say which of its queues are started, and net_netvsc does not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_mbuf.h>

#define BURST 32

static void need(int result, const char *what) {
  if (result >= 0) return;
  fprintf(stderr, "reflect: %s: %s\n", what, rte_strerror(-result));
  exit(2);
}

static uint16_t make(struct rte_mempool *pool, struct rte_mbuf **burst, const struct rte_ether_addr *to, uint16_t bytes) {
  if (rte_pktmbuf_alloc_bulk(pool, burst, BURST) < 0) return 0;
  for (unsigned i = 0; i < BURST; i++) {
    struct rte_ether_hdr *ether = (struct rte_ether_hdr *)rte_pktmbuf_append(burst[i], bytes);
    memset(ether, 2, bytes);
    rte_ether_addr_copy(to, &ether->dst_addr);
    ether->ether_type = RTE_BE16(0x88b5);
  }
  return BURST;
}

int main(int argc, char **argv) {
  struct rte_eth_conf conf = {0};
  struct rte_mbuf *burst[BURST];
  struct rte_ether_addr to;
  int used = rte_eal_init(argc, argv);
  need(used, "EAL");
  uint16_t bytes = argc - used == 3 ? (uint16_t)atoi(argv[used + 2]) : 0;
  if (bytes && rte_ether_unformat_addr(argv[used + 1], &to) < 0) need(-EINVAL, argv[used + 1]);
  if (rte_eth_dev_count_avail() == 0) need(-ENODEV, "no port");
  uint16_t port = (uint16_t)rte_eth_find_next(0);
  struct rte_mempool *pool = rte_pktmbuf_pool_create("packets", 2048, 128, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
  if (!pool) need(-rte_errno, "packet pool");
  need(rte_eth_dev_configure(port, 1, 1, &conf), "configure");
  need(rte_eth_tx_queue_setup(port, 0, 512, SOCKET_ID_ANY, NULL), "transmit queue");
  need(rte_eth_rx_queue_setup(port, 0, 512, SOCKET_ID_ANY, NULL, pool), "receive queue");
  need(rte_eth_dev_start(port), "start");
  printf("started\n");
  fflush(stdout);
  for (;;) {
    uint16_t count = rte_eth_rx_burst(port, 0, burst, BURST), sent = 0;
    for (uint16_t i = 0; i < count; i++) {
      struct rte_ether_hdr *ether = rte_pktmbuf_mtod(burst[i], struct rte_ether_hdr *);
      struct rte_ether_addr from = ether->src_addr;
      rte_ether_addr_copy(&ether->dst_addr, &ether->src_addr);
      rte_ether_addr_copy(&from, &ether->dst_addr);
      burst[i]->ol_flags = 0;
    }
    if (bytes) {
      rte_pktmbuf_free_bulk(burst, count);
      count = make(pool, burst, &to, bytes);
    }
    while (sent < count) sent += rte_eth_tx_burst(port, 0, burst + sent, (uint16_t)(count - sent));
  }
}
