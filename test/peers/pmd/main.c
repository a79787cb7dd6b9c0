/* The port's life and its controls: see pmd.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ether.h>
#include <rte_version.h>

#include "pmd.h"

#define BUFFERS 4096
#define KEY_BYTES 40
#define MAX_XSTATS 4096

struct port port;
static atomic_uint link_events;

uint64_t deadline_after(uint64_t milliseconds) { return rte_get_timer_cycles() + milliseconds * rte_get_timer_hz() / 1000; }

bool passed(uint64_t deadline) { return rte_get_timer_cycles() >= deadline; }

static const char *find(const struct words *words, const char *name) {
  for (unsigned i = 0; i < words->count; i++)
    if (strcmp(words->name[i], name) == 0) return words->value[i];
  return NULL;
}

const char *text_of(const struct words *words, const char *name) {
  const char *text = find(words, name);
  if (text) return text;
  fprintf(stderr, "pmd: no %s= given\n", name);
  exit(2);
}

uint64_t number_of(const struct words *words, const char *name, uint64_t otherwise) {
  const char *text = find(words, name);
  return text ? strtoull(text, NULL, 0) : otherwise;
}

static int on_link(uint16_t id, enum rte_eth_event_type type, void *parameter, void *result) {
  RTE_SET_USED(id), RTE_SET_USED(type), RTE_SET_USED(parameter), RTE_SET_USED(result);
  atomic_fetch_add(&link_events, 1);
  return 0;
}

/* Configures the port, as often as wanted while it is stopped. */
static int configure(const struct words *words) {
  struct rte_eth_conf conf = {0};
  uint64_t rss = number_of(words, "rss", 0);
  uint16_t rx = (uint16_t)number_of(words, "rxq", 1), tx = (uint16_t)number_of(words, "txq", rx);
  uint16_t buffer = (uint16_t)number_of(words, "buffer", RTE_MBUF_DEFAULT_BUF_SIZE);
  uint16_t descriptors = (uint16_t)number_of(words, "descriptors", 512);
  char name[32];
  static unsigned pools;
  conf.rxmode.offloads = number_of(words, "rxoffloads", 0);
  conf.txmode.offloads = number_of(words, "txoffloads", 0);
  conf.rxmode.mtu = (uint32_t)number_of(words, "mtu", RTE_ETHER_MTU);
  conf.intr_conf.lsc = (uint16_t)number_of(words, "lsc", 0) & 1;
  if (rss) {
    conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    conf.rx_adv_conf.rss_conf.rss_hf = rss;
  }
  int error = rte_eth_dev_configure(port.id, rx, tx, &conf);
  if (error < 0) return error;
  struct rte_mempool *pool = port.pool;
  if (!pool || rte_pktmbuf_data_room_size(pool) != buffer) {
    snprintf(name, sizeof name, "packets%u", pools++);
    port.pool = rte_pktmbuf_pool_create(name, BUFFERS, 128, 0, buffer, SOCKET_ID_ANY);
    if (!port.pool) return -rte_errno;
  }
  for (uint16_t q = 0; q < tx && error == 0; q++)
    error = rte_eth_tx_queue_setup(port.id, q, descriptors, SOCKET_ID_ANY, NULL);
  for (uint16_t q = 0; q < rx && error == 0; q++)
    error = rte_eth_rx_queue_setup(port.id, q, descriptors, SOCKET_ID_ANY, NULL, port.pool);
  port.rx_queues = rx;
  port.tx_queues = tx;
  return error;
}

static int start(const struct words *words) {
  RTE_SET_USED(words);
  return rte_eth_dev_start(port.id);
}

static int stop(const struct words *words) {
  RTE_SET_USED(words);
  return rte_eth_dev_stop(port.id);
}

static int set_mtu(const struct words *words) { return rte_eth_dev_set_mtu(port.id, (uint16_t)number_of(words, "bytes", 0)); }

static int promiscuous(const struct words *words) {
  return number_of(words, "on", 1) ? rte_eth_promiscuous_enable(port.id) : rte_eth_promiscuous_disable(port.id);
}

static int allmulticast(const struct words *words) {
  return number_of(words, "on", 1) ? rte_eth_allmulticast_enable(port.id) : rte_eth_allmulticast_disable(port.id);
}

static int info(const struct words *words) {
  struct rte_eth_dev_info about;
  uint16_t mtu = 0;
  RTE_SET_USED(words);
  int error = rte_eth_dev_info_get(port.id, &about);
  if (error == 0) error = rte_eth_dev_get_mtu(port.id, &mtu);
  if (error < 0) return error;
  printf(",\"dpdk\":\"%s\",\"driver\":\"%s\",\"rxQueues\":%u,\"txQueues\":%u,\"reta\":%u,\"keyBytes\":%u,\"mtu\":%u,"
         "\"rxOffloads\":%" PRIu64 ",\"txOffloads\":%" PRIu64 ",\"rss\":%" PRIu64 ",\"longest\":%" PRIu32,
         rte_version(), about.driver_name, about.max_rx_queues, about.max_tx_queues, about.reta_size, about.hash_key_size,
         mtu, about.rx_offload_capa, about.tx_offload_capa, about.flow_type_rss_offloads, about.max_rx_pktlen);
  return 0;
}

/* The link as the driver knows it, after it has looked for news (which it does when it receives). */
static int show_link(const struct words *words) {
  struct rte_eth_link link;
  struct rte_mbuf *none[1];
  RTE_SET_USED(words);
  if (rte_eth_rx_burst(port.id, 0, none, 1) == 1) rte_pktmbuf_free(none[0]);
  int error = rte_eth_link_get_nowait(port.id, &link);
  if (error < 0) return error;
  printf(",\"up\":%s,\"mbps\":%" PRIu32 ",\"fullDuplex\":%s,\"events\":%u", link.link_status ? "true" : "false",
         link.link_speed, link.link_duplex ? "true" : "false", atomic_load(&link_events));
  return 0;
}

static int stats(const struct words *words) {
  struct rte_eth_stats basic;
  RTE_SET_USED(words);
  int error = rte_eth_stats_get(port.id, &basic);
  if (error < 0) return error;
  printf(",\"opackets\":%" PRIu64 ",\"obytes\":%" PRIu64 ",\"ipackets\":%" PRIu64 ",\"ibytes\":%" PRIu64
         ",\"oerrors\":%" PRIu64 ",\"ierrors\":%" PRIu64 ",\"imissed\":%" PRIu64 ",\"nombuf\":%" PRIu64,
         basic.opackets, basic.obytes, basic.ipackets, basic.ibytes, basic.oerrors, basic.ierrors, basic.imissed,
         basic.rx_nombuf);
  return 0;
}

/* Those that are not 0. */
static int xstats(const struct words *words) {
  static struct rte_eth_xstat values[MAX_XSTATS];
  static struct rte_eth_xstat_name names[MAX_XSTATS];
  RTE_SET_USED(words);
  int count = rte_eth_xstats_get(port.id, values, MAX_XSTATS);
  if (count < 0 || count > MAX_XSTATS) return count < 0 ? count : -ENOSPC;
  if (rte_eth_xstats_get_names(port.id, names, MAX_XSTATS) != count) return -EIO;
  for (int i = 0; i < count; i++)
    if (values[i].value) printf(",\"%s\":%" PRIu64, names[values[i].id].name, values[i].value);
  return 0;
}

/* Key as hex digits; without one the types alone are changed. */
static int rss(const struct words *words) {
  uint8_t key[KEY_BYTES];
  struct rte_eth_rss_conf conf = {.rss_hf = number_of(words, "types", 0)};
  const char *hex = find(words, "key");
  if (hex) {
    for (unsigned i = 0; i < KEY_BYTES; i++)
      if (sscanf(hex + 2 * i, "%2hhx", &key[i]) != 1) return -EINVAL;
    conf.rss_key = key;
    conf.rss_key_len = KEY_BYTES;
  }
  return rte_eth_dev_rss_hash_update(port.id, &conf);
}

static int show_rss(const struct words *words) {
  uint8_t key[KEY_BYTES];
  struct rte_eth_rss_conf conf = {.rss_key = key, .rss_key_len = KEY_BYTES};
  RTE_SET_USED(words);
  int error = rte_eth_dev_rss_hash_conf_get(port.id, &conf);
  if (error < 0) return error;
  printf(",\"types\":%" PRIu64 ",\"key\":\"", conf.rss_hf);
  for (unsigned i = 0; i < KEY_BYTES; i++) printf("%02x", key[i]);
  printf("\"");
  return 0;
}

/* The table: queues=a,b,c... repeated over its entries; without it, it is shown. */
static int reta(const struct words *words) {
  struct rte_eth_dev_info about;
  struct rte_eth_rss_reta_entry64 table[RTE_ETH_RSS_RETA_SIZE_512 / RTE_ETH_RETA_GROUP_SIZE] = {0};
  unsigned queues[MAX_QUEUES], count = 0;
  int error = rte_eth_dev_info_get(port.id, &about);
  if (error < 0) return error;
  if (about.reta_size > RTE_ETH_RSS_RETA_SIZE_512) return -ENOSPC;
  for (unsigned group = 0; group < RTE_DIM(table); group++) table[group].mask = UINT64_MAX;
  const char *list = find(words, "queues");
  if (list) {
    for (char *end; count < MAX_QUEUES; list = end + 1) {
      queues[count++] = (unsigned)strtoul(list, &end, 10);
      if (*end != ',') break;
    }
    for (unsigned i = 0; i < about.reta_size; i++)
      table[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE] = (uint16_t)queues[i % count];
    return rte_eth_dev_rss_reta_update(port.id, table, about.reta_size);
  }
  error = rte_eth_dev_rss_reta_query(port.id, table, about.reta_size);
  if (error < 0) return error;
  printf(",\"queues\":[");
  for (unsigned i = 0; i < about.reta_size; i++)
    printf("%s%u", i ? "," : "", table[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE]);
  printf("]");
  return 0;
}

static const struct {
  const char *name;
  command *run;
} COMMANDS[] = {
    {"configure", configure}, {"start", start},     {"stop", stop},         {"mtu", set_mtu},
    {"promiscuous", promiscuous}, {"allmulticast", allmulticast}, {"info", info}, {"link", show_link},
    {"stats", stats},         {"xstats", xstats},   {"rss", rss},           {"show-rss", show_rss},
    {"reta", reta},           {"ping", ping},       {"flows", flows},       {"collect", collect},
    {"transmit", transmit},   {"receive", receive},
};

static int run(char *line) {
  struct words words = {0};
  char *rest = NULL, *name = strtok_r(line, " \n", &rest);
  for (char *word; name && (word = strtok_r(NULL, " \n", &rest)) && words.count < MAX_WORDS; words.count++) {
    char *equals = strchr(word, '=');
    if (!equals) return -EINVAL;
    *equals = 0;
    words.name[words.count] = word;
    words.value[words.count] = equals + 1;
  }
  for (unsigned i = 0; name && i < RTE_DIM(COMMANDS); i++)
    if (strcmp(COMMANDS[i].name, name) == 0) return COMMANDS[i].run(&words);
  return -ENOSYS;
}

int main(int argc, char **argv) {
  size_t room = 0;
  char *line = NULL;
  if (rte_eal_init(argc, argv) < 0 || rte_eth_dev_count_avail() == 0) {
    fprintf(stderr, "pmd: no port: %s\n", rte_strerror(rte_errno));
    return 2;
  }
  port.id = (uint16_t)rte_eth_find_next(0);
  rte_eth_macaddr_get(port.id, &port.mac);
  rte_eth_dev_callback_register(port.id, RTE_ETH_EVENT_INTR_LSC, on_link, NULL);
  printf("{\"ok\":true,\"ports\":%u}\n", rte_eth_dev_count_avail());
  fflush(stdout);
  while (getline(&line, &room, stdin) > 0) {
    /* Members first: whether all went well is known behind them. */
    printf("{\"pmd\":1");
    int error = run(line);
    /* A set-OID that fails comes back as a positive number. */
    if (error == 0) printf(",\"ok\":true}\n");
    else printf(",\"ok\":false,\"error\":\"%s\"}\n", rte_strerror(abs(error)));
    fflush(stdout);
  }
  free(line);
  rte_eth_dev_stop(port.id);
  int error = rte_eth_dev_close(port.id);
  rte_eal_cleanup();
  return error ? 1 : 0;
}
