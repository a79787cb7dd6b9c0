/* A guest of somebody else's making: DPDK's net_netvsc, led by the test that started it. It reads commands, a line each:
 * a word, then name=value words. It answers each with a line of JSON: {"ok":true,...}, or {"ok":false,"error":"..."} with
 * what DPDK says, so that tests see which call was refused. Builds with DPDK 22.11 and later. */
#ifndef PMD_H
#define PMD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#define MAX_QUEUES 64
#define MAX_FRAME 65536
#define MAX_WORDS 32

struct port {
  uint16_t id;
  uint16_t rx_queues, tx_queues;
  struct rte_mempool *pool;
  struct rte_ether_addr mac;
};

/* The first device that is not in use by somebody else. */
extern struct port port;

/* A command's name=value words. */
struct words {
  unsigned count;
  char *name[MAX_WORDS], *value[MAX_WORDS];
};

/* The value of that name; the default when it was not given (a missing text is an error). */
const char *text_of(const struct words *words, const char *name);
uint64_t number_of(const struct words *words, const char *name, uint64_t otherwise);

/* A command returns 0 or a DPDK error; what it has to tell it prints before that, as JSON members after a comma. */
typedef int command(const struct words *words);
/* traffic.c */
command ping, flows, collect;
/* frames.c */
command transmit, receive;

/* Milliseconds that commands wait for frames. */
uint64_t deadline_after(uint64_t milliseconds);
bool passed(uint64_t deadline);

/* Copies a frame into a chain of buffers of `cut` bytes each (0: one buffer). NULL: no buffers. */
struct rte_mbuf *make_chain(const uint8_t *frame, unsigned length, unsigned cut);

#endif
