// Counts packets by IP protocol; settings are constants that a loader may change, counters are variables.
#include "bpf.h"

struct counter {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct counter);
} protocols SEC(".maps");

const volatile __u32 sample_every = 1;
const volatile int drop_fragments = 0;
static volatile const __u16 limit = 1500;
__u64 seen;
__u32 last_queue = 77;
static volatile __u32 hidden[3] = {1, 2, 3};

static __noinline int count(__u32 protocol, __u64 bytes)
{
	struct counter *counter = bpf_map_lookup_elem(&protocols, &protocol);

	if (!counter)
		return -1;
	counter->packets++;
	counter->bytes += bytes;
	return 0;
}

__noinline int is_fragment(struct xdp_md *ctx)
{
	struct iphdr *ip = (void *)(long)ctx->data + sizeof(struct ethhdr);

	if ((void *)(ip + 1) > (void *)(long)ctx->data_end)
		return 0;
	return (ip->fragment & htons(0x3fff)) != 0;
}

SEC("xdp") int count_all(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);

	seen++;
	last_queue = ctx->rx_queue_index;
	hidden[1]++;
	if ((void *)(ip + 1) > end || eth->protocol != htons(ETH_P_IP))
		return XDP_PASS;
	if (end - data > limit)
		return XDP_DROP;
	if (drop_fragments && is_fragment(ctx))
		return XDP_DROP;
	if (seen % sample_every == 0 && count(ip->protocol, end - data))
		return XDP_ABORTED;
	return XDP_PASS;
}

SEC("xdp.frags") int count_frags(struct xdp_md *ctx)
{
	return count(0, 1) ? XDP_ABORTED : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
