// Functions whose address is taken, and functions that several programs need.
#include "bpf.h"

struct state {
	__u32 sum;
};

static __noinline __u32 mix(__u32 a, __u32 b)
{
	return (a ^ b) * 0x9e3779b1;
}

static long add(__u32 index, void *ctx)
{
	struct state *state = ctx;

	state->sum = mix(state->sum, index);
	return 0;
}

SEC("xdp") int with_loop(struct xdp_md *ctx)
{
	struct state state = {};

	bpf_loop(10, add, &state, 0);
	return state.sum ? XDP_PASS : XDP_DROP;
}

SEC("xdp") int with_call(struct xdp_md *ctx)
{
	return mix(ctx->ingress_ifindex, ctx->rx_queue_index) ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
