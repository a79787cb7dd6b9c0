// Variables of every type, with values that the tests know.
#include "bpf.h"

enum color { RED, GREEN = 5, BLUE = -2 };
typedef struct {
	int x, y;
} point;

struct everything {
	__u8 u8;
	__s8 s8;
	__u16 u16;
	__s16 s16;
	__u32 u32;
	__s32 s32;
	__u64 u64;
	__s64 s64;
	__u64 large;
	_Bool yes;
	char letter;
	char text[8];
	char full[4];
	char binary[3];
	__u8 mac[6];
	enum color color;
	enum color odd;
	point points[2];
	int grid[2][3];
	union {
		__u32 word;
		__u8 bytes[4];
	};
	struct {
		__u32 low : 3, middle : 11;
		__s32 negative : 5;
		enum color shade : 4;
	} bits;
	void *pointer;
	double d;
	float f;
	const char names[2][4];
};

struct everything all = {
	.u8 = 200, .s8 = -100, .u16 = 60000, .s16 = -30000, .u32 = 4000000000, .s32 = -2000000000,
	.u64 = 9007199254740991, .s64 = -5, .large = 0xfedcba9876543210, .yes = 1, .letter = 'x', .text = "hello",
	.full = {'f', 'u', 'l', 'l'}, .binary = {1, -1, 0}, .mac = {0, 0x15, 0x5d, 1, 2, 3}, .color = BLUE,
	.odd = (enum color)77, .points = {{1, -2}, {3, 4}}, .grid = {{1, 2, 3}, {4, 5, 6}}, .word = 0x04030201,
	.bits = {.low = 5, .middle = 1029, .negative = -3, .shade = GREEN}, .d = 0.25, .f = -1.5,
	.names = {"ab", "cde"},
};
const volatile struct everything none;
__u64 alone = 1;

SEC("xdp") int nothing(struct xdp_md *ctx)
{
	return alone + none.u8 ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
