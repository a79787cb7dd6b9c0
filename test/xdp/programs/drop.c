// The shortest program there is.
#include "bpf.h"

SEC("xdp") int drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
