// CO-RE records: about the object's own types, and about a kernel's.
#include "bpf.h"

struct local {
	__u32 a;
	__u64 b;
};

enum shape { ROUND = 3, SQUARE = 70000 };

struct inner {
	__u16 pad;
	__s8 small;
};

struct kernel_thing {
	__u32 before;
	__u32 bits : 7;
	__s32 more : 11;
	struct inner list[4];
} __attribute__((preserve_access_index));

#define FIELD_OFFSET 0
#define FIELD_SIZE 1
#define FIELD_EXISTS 2
#define FIELD_SIGNED 3
#define FIELD_LSHIFT 4
#define FIELD_RSHIFT 5

volatile __u64 facts[16];

SEC("xdp") int ask(struct xdp_md *ctx)
{
	struct kernel_thing *thing = (void *)(long)ctx->data;

	if ((void *)(thing + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	facts[0] = __builtin_btf_type_id(*(struct local *)0, 0);
	facts[1] = __builtin_preserve_type_info(*(struct local *)0, 0);
	facts[2] = __builtin_preserve_type_info(*(struct local *)0, 1);
	facts[3] = __builtin_preserve_enum_value(*(enum shape *)SQUARE, 0);
	facts[4] = __builtin_preserve_enum_value(*(enum shape *)SQUARE, 1);
	facts[5] = __builtin_preserve_field_info(thing->list[2].small, FIELD_OFFSET);
	facts[6] = __builtin_preserve_field_info(thing->list[2].small, FIELD_SIZE);
	facts[7] = __builtin_preserve_field_info(thing->list[2].small, FIELD_EXISTS);
	facts[8] = __builtin_preserve_field_info(thing->list[2].small, FIELD_SIGNED);
	facts[9] = __builtin_preserve_field_info(thing->more, FIELD_OFFSET);
	facts[10] = __builtin_preserve_field_info(thing->more, FIELD_SIZE);
	facts[11] = __builtin_preserve_field_info(thing->more, FIELD_LSHIFT);
	facts[12] = __builtin_preserve_field_info(thing->more, FIELD_RSHIFT);
	facts[13] = __builtin_preserve_field_info(thing->more, FIELD_SIGNED);
	return thing->list[1].pad ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
