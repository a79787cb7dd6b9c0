/* The C guest of `npm run bench -- peers`: DPDK's net_netvsc on the one port it finds, the same work as guest.ts.
 *
 * Usage: guest EAL-ARGUMENTS -- TARGET-MAC FROM-HOST TO-HOST BURST
 * TARGET-MAC is where it sends; the next two are named pipes that carry the turn (baton.ts); BURST is packets a call. Tasks
 * come as lines on standard input (task.ts), a result goes out as a line of JSON for each. Ends with its input. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_mbuf.h>

#define MAX_BURST 256
#define MAX_GROUPS 65536
#define MAX_BYTES 1514
/* Descriptors: more than a group has packets. */
#define DESCRIPTORS 1024
#define MBUFS 8191
#define MBUF_CACHE 256
/* Calls in a row that may move nothing while the host stands still. */
#define ATTEMPTS 1000
#define WARM_UP_MS 20
/* A turn that took so many times the median (work.ts). */
#define INTERRUPTED 8
#define IP_HEADER 0x0045
/* First bytes of a frame, which the work on each packet writes and reads. */
#define HEAD_WORDS 4

static uint16_t port;
/* Packets a call. */
static unsigned burst_packets;
static struct rte_mempool *pool;
static uint32_t head[HEAD_WORDS];
static int from_host, to_host;
static uint64_t hz;
/* ns per packet of turns: all of the work, the driver's calls alone. */
static double work_ns[MAX_GROUPS], call_ns[MAX_GROUPS];
static uint64_t wrong;
/* Whether the calls are timed, cycles in them so far, and what looking at the clock takes of that. */
static int timing;
static uint64_t call_cycles, clock_cycles;

static void fail(const char *what, int code) {
  fprintf(stderr, "guest.c: %s: %s\n", what, rte_strerror(code < 0 ? -code : code));
  exit(2);
}

static void pass_turn(void) {
  char byte = 0;
  if (write(to_host, &byte, 1) != 1) fail("write to the host's pipe", errno);
}

static void await_turn(void) {
  char byte;
  ssize_t got;
  do got = read(from_host, &byte, 1);
  while (got < 0 && errno == EINTR);
  if (got != 1) fail("read from the host's pipe", got < 0 ? errno : EPIPE);
}

static inline uint64_t before_call(void) { return timing ? rte_rdtsc() : 0; }

static inline void after_call(uint64_t before) {
  if (timing) call_cycles += rte_rdtsc() - before - clock_cycles;
}

static void measure_clock(void) {
  clock_cycles = UINT64_MAX;
  for (int i = 0; i < 1000; i++) {
    uint64_t before = rte_rdtsc(), took = rte_rdtsc() - before;
    if (took < clock_cycles) clock_cycles = took;
  }
}

/* A burst of packets to send: buffers, lengths, headers. */
static void make(struct rte_mbuf **burst, unsigned bytes) {
  if (rte_pktmbuf_alloc_bulk(pool, burst, burst_packets) != 0) fail("no buffers", ENOBUFS);
  for (unsigned i = 0; i < burst_packets; i++) {
    burst[i]->data_len = (uint16_t)bytes;
    burst[i]->pkt_len = bytes;
    uint32_t *data = rte_pktmbuf_mtod(burst[i], uint32_t *);
    for (unsigned word = 0; word < HEAD_WORDS; word++) data[word] = head[word];
  }
}

/* Looks at the headers of what came and frees it. */
static void take(struct rte_mbuf **burst, unsigned count, unsigned bytes) {
  for (unsigned i = 0; i < count; i++) {
    const uint32_t *data = rte_pktmbuf_mtod(burst[i], const uint32_t *);
    if (data[3] != head[3] || burst[i]->data_len != bytes) wrong++;
  }
  rte_pktmbuf_free_bulk(burst, count);
}

static void send_group(unsigned bytes, unsigned group) {
  struct rte_mbuf *burst[MAX_BURST];
  for (unsigned done = 0; done < group; done += burst_packets) {
    unsigned sent = 0;
    make(burst, bytes);
    for (int attempt = 0; sent < burst_packets; attempt++) {
      uint64_t before = before_call();
      sent += rte_eth_tx_burst(port, 0, burst + sent, (uint16_t)(burst_packets - sent));
      after_call(before);
      if (attempt == ATTEMPTS) fail("the driver takes no more packets", EAGAIN);
    }
  }
}

static void receive_group(unsigned bytes, unsigned group) {
  struct rte_mbuf *burst[MAX_BURST];
  int idle = 0;
  for (unsigned got = 0; got < group;) {
    uint64_t before = before_call();
    unsigned n = rte_eth_rx_burst(port, 0, burst, burst_packets);
    after_call(before);
    if (n == 0 && ++idle == ATTEMPTS) fail("packets are missing", EAGAIN);
    take(burst, n, bytes);
    got += n;
  }
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Mean of the turns that nobody interrupted: what a driver puts off, such as completions, comes to some turns only. */
static double mean(double *values, unsigned count) {
  double sum = 0;
  unsigned n = 0;
  qsort(values, count, sizeof *values, ascending);
  for (; n < count && values[n] <= INTERRUPTED * values[count / 2]; n++) sum += values[n];
  return sum / n;
}

/* Host and guest in turn, a group of packets each. Every other turn times the driver's calls, which disturbs the rest. */
static void step(int sending, unsigned bytes, unsigned group, unsigned groups) {
  double scale = 1e9 / (double)hz / group;
  for (unsigned i = 0; i < groups; i++) {
    pass_turn();
    await_turn();
    timing = i & 1;
    call_cycles = 0;
    uint64_t start = rte_rdtsc();
    if (sending) send_group(bytes, group);
    else receive_group(bytes, group);
    if (timing) call_ns[i / 2] = (double)call_cycles * scale;
    else work_ns[i / 2] = (double)(rte_rdtsc() - start) * scale;
  }
  pass_turn();
  await_turn();
  printf("{\"type\":\"done\",\"packets\":%" PRIu64 ",\"ns\":%.3f,\"workNs\":%.3f,\"wrong\":%" PRIu64 "}\n",
         (uint64_t)groups * group, mean(call_ns, groups / 2), mean(work_ns, groups / 2), wrong);
}

/* Both at once; only the slice behind the warm-up counts. */
static void run(int sending, unsigned bytes, unsigned ms) {
  struct rte_mbuf *burst[MAX_BURST];
  unsigned have = 0, n;
  uint64_t packets = 0, busy = 0, total = 0;
  pass_turn();
  uint64_t last = rte_rdtsc(), now;
  uint64_t begin = last + WARM_UP_MS * hz / 1000, end = begin + ms * hz / 1000;
  for (; last < end; last = now) {
    if (sending) {
      if (have == 0) {
        make(burst, bytes);
        have = burst_packets;
      }
      n = rte_eth_tx_burst(port, 0, burst + burst_packets - have, (uint16_t)have);
      have -= n;
    } else {
      n = rte_eth_rx_burst(port, 0, burst, burst_packets);
      take(burst, n, bytes);
    }
    now = rte_rdtsc();
    if (last < begin) continue;
    packets += n;
    total += now - last;
    if (n > 0) busy += now - last;
  }
  if (have > 0) rte_pktmbuf_free_bulk(burst + burst_packets - have, have);
  await_turn();
  if (!sending) {
    while ((n = rte_eth_rx_burst(port, 0, burst, burst_packets)) > 0) take(burst, n, bytes);
  }
  double ns = 1e9 / (double)hz;
  printf("{\"type\":\"done\",\"packets\":%" PRIu64 ",\"ns\":%.3f,\"ms\":%.3f,\"busy\":%.4f,\"wrong\":%" PRIu64 "}\n",
         packets, packets ? (double)busy * ns / (double)packets : 0, (double)total * ns / 1e6,
         total ? (double)busy / (double)total : 0, wrong);
}

static void open_port(void) {
  struct rte_eth_conf conf = {0};
  if (rte_eth_dev_count_avail() != 1) fail("expected one port", ENODEV);
  port = (uint16_t)rte_eth_find_next(0);
  pool = rte_pktmbuf_pool_create("packets", MBUFS, MBUF_CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
  if (!pool) fail("packet pool", rte_errno);
  int error = rte_eth_dev_configure(port, 1, 1, &conf);
  if (error == 0) error = rte_eth_tx_queue_setup(port, 0, DESCRIPTORS, SOCKET_ID_ANY, NULL);
  if (error == 0) error = rte_eth_rx_queue_setup(port, 0, DESCRIPTORS, SOCKET_ID_ANY, NULL, pool);
  if (error == 0) error = rte_eth_dev_start(port);
  if (error < 0) fail("start", error);
}

int main(int argc, char **argv) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int used = rte_eal_init(argc, argv);
  if (used < 0) fail("EAL", rte_errno);
  argc -= used;
  argv += used;
  struct rte_ether_hdr ether = {.ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4)};
  if (argc != 5) fail("expected TARGET-MAC FROM-HOST TO-HOST BURST", EINVAL);
  if (rte_ether_unformat_addr(argv[1], &ether.dst_addr) < 0) fail(argv[1], EINVAL);
  from_host = open(argv[2], O_RDWR | O_CLOEXEC);
  to_host = open(argv[3], O_RDWR | O_CLOEXEC);
  if (from_host < 0 || to_host < 0) fail("pipes", errno);
  burst_packets = (unsigned)strtoul(argv[4], NULL, 10);
  if (burst_packets == 0 || burst_packets > MAX_BURST) fail(argv[4], EINVAL);
  open_port();
  rte_eth_macaddr_get(port, &ether.src_addr);
  uint16_t ip = IP_HEADER;
  memcpy(head, &ether, sizeof ether);
  memcpy((char *)head + sizeof ether, &ip, sizeof ip);
  hz = rte_get_tsc_hz();
  measure_clock();
  printf("{\"type\":\"ready\",\"hz\":%" PRIu64 "}\n", hz);
  fflush(stdout);

  char line[128], how[8], mode[8];
  unsigned bytes, group, count, cpu;
  while (fgets(line, sizeof line, stdin)) {
    if (sscanf(line, "%7s %7s %u %u %u %u", how, mode, &bytes, &group, &count, &cpu) != 6) fail(line, EINVAL);
    if (bytes < sizeof head || bytes > MAX_BYTES || group == 0 || group % burst_packets || group >= DESCRIPTORS) fail(line, EINVAL);
    if (count < 2 || count > MAX_GROUPS) fail(line, EINVAL);
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(cpu, &cpus);
    if (sched_setaffinity(0, sizeof cpus, &cpus) < 0) fail("affinity", errno);
    if (strcmp(how, "step") == 0) step(strcmp(mode, "tx") == 0, bytes, group, count);
    else run(strcmp(mode, "tx") == 0, bytes, count);
    fflush(stdout);
  }
  rte_eth_dev_stop(port);
  rte_eth_dev_close(port);
  rte_eal_cleanup();
  return 0;
}
