/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Includes, constants and functions of all programs at hooks.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* enum tcx_action_base, linux/bpf.h of 6.6. NEXT runs the next program. */
#define NEXT (-1)
#define DROP 2

#define AF_INET 2
#define IP_FRAGMENT 0x3fff /* more fragments, or an offset */
#define ECN_MASK 3	   /* RFC 3168: 0 not ECT, 1 ECT(1), 2 ECT(0), 3 CE */

/* RFC 1071 over an IPv4 header without options; 0xffff if it is intact. */
static __always_inline __u16 header_sum(const struct iphdr *ip)
{
	__u32 w[sizeof(*ip) / 4];
	__u64 s = 0;

	__builtin_memcpy(w, ip, sizeof(w));
#pragma unroll
	for (int i = 0; i < sizeof(w) / sizeof(w[0]); i++)
		s += w[i];
	s = (s & 0xffffffff) + (s >> 32);
	s = (s & 0xffff) + (s >> 16);
	return s + (s >> 16);
}
