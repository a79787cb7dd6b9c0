// Every way to declare a map, and what is put into maps before programs run.
#include "bpf.h"

struct flow {
	__u32 source;
	__u32 destination;
	__u16 ports[2];
	__u8 protocol;
};

enum verdict { VERDICT_NONE, VERDICT_ALLOW, VERDICT_DENY = 10, VERDICT_ERROR = -1 };

struct entry {
	enum verdict verdict;
	char name[16];
	union {
		__u64 whole;
		struct {
			__u32 low, high;
		};
	};
	__u8 first : 3, second : 5;
	_Bool on;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct flow);
	__type(value, struct entry);
	__uint(pinning, 1);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(key_size, 8);
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 100);
	__uint(map_flags, 1);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_BLOOM_FILTER);
	__type(value, __u64);
	__uint(max_entries, 50);
	__uint(map_extra, 3);
	__uint(map_flags, 4);
	__uint(numa_node, 1);
} bloom SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(key_size, 4);
	__uint(value_size, 8);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} table_a SEC(".maps"), table_b SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct table);
} tables SEC(".maps") = {.values = {[0] = &table_a, [2] = &table_b}};

int second(struct xdp_md *ctx);
int elsewhere(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__array(values, int(void *));
} jumps SEC(".maps") = {.values = {[1] = (void *)&second, [3] = (void *)&elsewhere}};

SEC("xdp") int first(struct xdp_md *ctx)
{
	struct flow flow = {.source = ctx->ingress_ifindex};
	struct entry *entry = bpf_map_lookup_elem(&flows, &flow);
	__u32 zero = 0;
	void *inner = bpf_map_lookup_elem(&tables, &zero);

	if (entry && entry->verdict == VERDICT_DENY)
		return XDP_DROP;
	if (inner) {
		__u64 *value = bpf_map_lookup_elem(inner, &zero);

		if (value)
			__sync_fetch_and_add(value, 1);
	}
	bpf_tail_call(ctx, &jumps, 1);
	return XDP_PASS;
}

SEC("xdp") int second(struct xdp_md *ctx)
{
	return bpf_redirect_map(&ports, ctx->rx_queue_index, XDP_DROP);
}

SEC("xdp/devmap") int to_device(struct xdp_md *ctx)
{
	return ctx->egress_ifindex == 1 ? XDP_DROP : XDP_PASS;
}

SEC("xdp.frags/cpumap") int to_cpu(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("tc") int elsewhere(struct xdp_md *ctx)
{
	return 0;
}

char _license[] SEC("license") = "GPL";
