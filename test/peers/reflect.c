/* DPDK's net_netvsc as a mirror: sends back every frame, source and destination swapped, from its own memory.
 *   reflect [EAL options]
 * Prints "started" and runs until it is killed. dpdk-testpmd cannot be taken for this: in 22.11 it forwards on no queue of
 * a driver that does not say which of its queues are started, and net_netvsc does not. */
#include <stdio.h>
#include <stdlib.h>

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

int main(int argc, char **argv) {
  struct rte_eth_conf conf = {0};
  struct rte_mbuf *burst[BURST];
  need(rte_eal_init(argc, argv), "EAL");
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
    while (sent < count) sent += rte_eth_tx_burst(port, 0, burst + sent, (uint16_t)(count - sent));
  }
}
