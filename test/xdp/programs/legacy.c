// Maps as they were declared before BTF.
#include "bpf.h"

struct bpf_map_def {
	__u32 type, key_size, value_size, max_entries, map_flags;
};

struct bpf_map_def old_array SEC("maps") = {BPF_MAP_TYPE_ARRAY, 4, 8, 16, 0};
struct bpf_map_def old_hash SEC("maps") = {BPF_MAP_TYPE_HASH, 6, 4, 1000, 1};

SEC("xdp_old") int old(struct xdp_md *ctx)
{
	__u32 key = 3;
	__u64 *value = bpf_map_lookup_elem(&old_array, &key);

	return value && *value && bpf_map_lookup_elem(&old_hash, &key) ? XDP_TX : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
