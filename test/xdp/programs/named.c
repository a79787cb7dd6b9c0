// Sections whose names tell nothing, programs that are not XDP, and what libxdp's loader is told.
#include "bpf.h"

struct {
	__uint(priority, 10);
	__uint(XDP_PASS, 0);
	__uint(XDP_DROP, 1);
} _my_program __attribute__((section(".xdp_run_config"), used));

#undef XDP_PASS

SEC("mine") int my_program(struct xdp_md *ctx)
{
	return 2;
}

SEC("kprobe/tcp_connect") int probe(void *ctx)
{
	return 0;
}

SEC("xdp/usual") int usual(struct xdp_md *ctx)
{
	return 2;
}

char _license[] SEC("license") = "GPL";
