//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * flannel's UDP encapsulation in the kernel: a bare IPv4 packet is the payload
 * of one UDP datagram. Two programs, attached with tcx, and one of XDP:
 *
 *   out    egress of the TUN device   wraps, and sends by the kernel's own route
 *   in     ingress of an uplink       checks, unwraps, and hands to the TUN device
 *   early  driver of an uplink        checks and unwraps for `in`, before GRO
 *
 * What they decline goes the way that it went without them: from `out` to the
 * TUN's reader, from `in` to the UDP socket, from `early` to `in`. They drop
 * only what the reader of the socket would refuse as forged, under the same
 * names.
 *
 * What `out` sends is told by its UDP checksum of 0 (RFC 768: none), and `in`
 * takes nothing else. A datagram of a user-space sender has one, and would need
 * it verified first; such senders also batch (UDP_SEGMENT), and a flow must not
 * have its batches take one path and its single packets the other.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "state.h"

#define AF_INET 2
#define EINVAL 22
#define IP_DF 0x4000
#define IP_FRAGMENT 0x3fff /* more fragments, or an offset */
#define ECN_MASK 3	   /* RFC 3168: 0 not ECT, 1 ECT(1), 2 ECT(0), 3 CE */
#define ECT_1 1
#define ECT_0 2
#define CE 3
#define VID 0xfff	   /* IEEE 802.1Q: a tag's VLAN; 0 has a priority and is of none */
#define PORTS 0xc000	    /* source ports from the dynamic range, RFC 6335 */
#define SECOND 1000000000UL /* of bpf_ktime_get_ns */

/* Of linux/icmp.h, which cannot be had without a C library. */
#define ICMP_DEST_UNREACH 3
#define ICMP_FRAG_NEEDED 4

struct outer {
	struct iphdr ip;
	struct udphdr udp;
};

#define OVERHEAD (int)sizeof(struct outer)

/*
 * BPF_F_ADJ_ROOM_DECAP_L4_UDP of linux/bpf.h, for kernels that have it: takes
 * the mark of the tunnel off a super-packet. Under that mark, devices that
 * carry no tunnels in hardware, such as a bridge, have it cut.
 */
static __u64 decap = 1 << 10;

/* RFC 1071 over an IPv4 header without options; 0xffff where it is intact. */
static __always_inline __u16 sum(const struct iphdr *ip)
{
	const __u16 *w = (const void *)ip;
	__u32 s = 0;

#pragma unroll
	for (int i = 0; i < sizeof(*ip) / 2; i++)
		s += w[i];
	s = (s & 0xffff) + (s >> 16);
	return s + (s >> 16);
}

/*
 * Bytes of headers that each segment of a super-packet repeats, or 0 where it
 * is not TCP. off is where the inner IP header starts.
 */
static __always_inline __u32 repeated(struct __sk_buff *skb, __u32 off, const struct iphdr *ip)
{
	__u32 n = ip->ihl * 4;
	__u8 doff;

	if (ip->protocol != IPPROTO_TCP ||
	    bpf_skb_load_bytes(skb, off + n + 12, &doff, sizeof(doff)) < 0)
		return 0;
	return n + (doff >> 4) * 4;
}

/* A flow whose packets went different ways would be reordered: it stays. */
static __always_inline int decline(__u64 *flow)
{
	*flow = bpf_ktime_get_ns();
	return NEXT;
}

static __always_inline int unwrap(struct __sk_buff *skb, __u64 flags)
{
	return bpf_skb_adjust_room(skb, -OVERHEAD, BPF_ADJ_ROOM_MAC,
				   BPF_F_ADJ_ROOM_FIXED_GSO | flags);
}

SEC("tcx/egress")
int out(struct __sk_buff *skb)
{
	__u32 len = skb->len, segment = len, segments = 1, hdr = 0, hash, slot;
	struct bpf_fib_lookup fib = {.family = AF_INET};
	struct outer o = {};
	struct iphdr ip;
	struct peer *p;
	__u64 *flow;

	/* A TUN has no link header: data is the IP header. */
	if (skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) < 0)
		return NEXT;

	/*
	 * On a virtual link (veth, virtio) a super-packet and a checksum that is
	 * left to the hardware arrive as they were sent. Only a kernel that takes
	 * them by `in` can make sense of either; a UDP socket would hand out a
	 * datagram of 64 KiB with half a TCP checksum.
	 */
	p = find(ip.daddr);
	if (!p || !p->kernel)
		return NEXT;

	hash = bpf_get_hash_recalc(skb);
	slot = hash % FLOWS;
	flow = bpf_map_lookup_elem(&declined, &slot);
	if (!flow)
		return NEXT;
	if (*flow) {
		if (bpf_ktime_get_ns() - *flow < SECOND)
			return NEXT;
		*flow = 0;
	}

	if (bpf_ntohs(ip.tot_len) != len || len + OVERHEAD > 0xffff)
		return decline(flow);
	if (skb->gso_size) {
		/*
		 * Not so UDP's super-packets: after `in` nothing takes the mark of
		 * the tunnel off them, and a socket that wants them split gets none.
		 */
		hdr = repeated(skb, 0, &ip);
		if (!hdr || hdr >= len)
			return decline(flow);
		segment = hdr + skb->gso_size;
		segments = (len - hdr + skb->gso_size - 1) / skb->gso_size;
	}

	o.ip.version = 4;
	o.ip.ihl = 5;
	o.ip.tos = ip.tos; /* RFC 6040 and RFC 2983: ECN and DSCP show outside */
	o.ip.tot_len = bpf_htons(len + OVERHEAD);
	o.ip.frag_off = bpf_htons(IP_DF);
	o.ip.ttl = 64;
	o.ip.protocol = IPPROTO_UDP;
	o.ip.saddr = local;
	o.ip.daddr = p->addr;
	o.ip.check = ~sum(&o.ip);
	o.udp.source = bpf_htons(PORTS | ((hash ^ hash >> 16) & ~PORTS));
	o.udp.dest = port;
	o.udp.len = bpf_htons(len + sizeof(o.udp));

	/*
	 * The route is asked for every packet, so that it need not be watched. It
	 * knows about a path's MTU; for a packet larger than that (tot_len), the
	 * reader of the TUN answers with ICMP, as the sender would expect.
	 */
	fib.ifindex = device;
	fib.tos = ip.tos & ~ECN_MASK;
	fib.tot_len = segment + OVERHEAD;
	fib.l4_protocol = IPPROTO_UDP;
	fib.sport = o.udp.source;
	fib.dport = port;
	fib.ipv4_src = local;
	fib.ipv4_dst = p->addr;
	if (bpf_fib_lookup(skb, &fib, sizeof(fib), BPF_FIB_LOOKUP_SKIP_NEIGH))
		return decline(flow);

	/* FIXED_GSO: the TUN's MTU has left room, the segments stay as they are. */
	if (bpf_skb_adjust_room(skb, OVERHEAD, BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
				BPF_F_ADJ_ROOM_FIXED_GSO))
		return decline(flow);

	/*
	 * bpf_redirect_neigh takes an Ethernet header off and puts its own on. A
	 * packet that has got too large for that (BPF_SKB_MAX_LEN) is put back.
	 */
	if (bpf_skb_change_head(skb, ETH_HLEN, 0))
		return unwrap(skb, 0) ? DROP : decline(flow);
	bpf_skb_store_bytes(skb, ETH_HLEN, &o, sizeof(o), 0); /* there is room */

	p->tx_packets += segments;
	p->tx_bytes += len + (segments - 1) * hdr;

	/*
	 * Not told the next hop, the kernel looks it up again, and replaces the
	 * inner packet's route by the outer one's: a packet that waits for its
	 * neighbour's address is sent by the route that it has then.
	 */
	return bpf_redirect_neigh(fib.ifindex, NULL, 0, 0);
}

/*
 * A router reports a datagram of `out` as too big for its next link. The kernel
 * heeds that if the datagram came from a socket; so say it came from the one on
 * our port. The route then has the path's MTU, and `out` asks the route.
 */
static __always_inline void too_big(struct __sk_buff *skb, __u32 off)
{
	struct {
		struct iphdr ip;
		__u8 type, code; /* RFC 792 */
		__sum16 checksum;
		__u32 rest;
		struct outer sent;
	} h;

	if (bpf_skb_load_bytes(skb, off, &h, sizeof(h)) < 0 ||
	    h.type != ICMP_DEST_UNREACH || h.code != ICMP_FRAG_NEEDED ||
	    h.ip.version != 4 || h.ip.ihl != 5 || h.ip.daddr != local ||
	    h.ip.frag_off & bpf_htons(IP_FRAGMENT) || h.sent.ip.ihl != 5 || h.sent.ip.protocol != IPPROTO_UDP ||
	    h.sent.ip.saddr != local || h.sent.udp.dest != port ||
	    bpf_ntohs(h.sent.udp.source) < PORTS)
		return;
	bpf_l4_csum_replace(skb, off + __builtin_offsetof(typeof(h), checksum),
			    h.sent.udp.source, port, sizeof(port));
	bpf_skb_store_bytes(skb, off + __builtin_offsetof(typeof(h), sent.udp.source),
			    (void *)&port, sizeof(port), 0);
}

struct frame {
	struct outer o;
	struct iphdr ip;
};

/*
 * Whether that begins a datagram of `out` with one whole packet; size is that
 * of all behind the link header. Odd ones are for the socket: its reader counts
 * what is malformed.
 */
static __always_inline int whole(const struct frame *h, __u32 size)
{
	__u32 len = bpf_ntohs(h->ip.tot_len);

	return h->o.ip.protocol == IPPROTO_UDP && h->o.ip.daddr == local && h->o.udp.dest == port &&
	       !h->o.udp.check && h->o.ip.version == 4 && h->o.ip.ihl == 5 &&
	       !(h->o.ip.frag_off & bpf_htons(IP_FRAGMENT)) &&
	       bpf_ntohs(h->o.ip.tot_len) == len + OVERHEAD &&
	       bpf_ntohs(h->o.udp.len) == len + sizeof(h->o.udp) && len + OVERHEAD <= size &&
	       h->ip.version == 4 && h->ip.ihl >= 5 && sum(&h->o.ip) == 0xffff;
}

/* A device drops what is above its MTU if it is redirected there. */
static __always_inline int fits(void *ctx, const struct frame *h)
{
	__u32 mtu = bpf_ntohs(h->ip.tot_len);

	return !bpf_check_mtu(ctx, device, &mtu, 0, 0);
}

/*
 * The sender of a whole datagram, NULL if it is refused. The inner header gets
 * what a router's mark makes of it.
 */
static __always_inline struct peer *admit(struct frame *h)
{
	struct peer *p = find(h->ip.saddr);
	__u8 tos = h->ip.tos;
	__u32 s;

	if (!p || p->addr != h->o.ip.saddr)
		return refuse(bpf_map_lookup_elem(&hosts, &h->o.ip.saddr) ? INNER_SOURCE_MISMATCH
									  : UNKNOWN_OUTER_SOURCE);
	if ((h->ip.daddr & mask) != subnet)
		return refuse(INNER_DESTINATION_MISMATCH);

	/* RFC 6040, figure 4: a router's mark must reach an end that can see it. */
	switch (h->o.ip.tos & ECN_MASK) {
	case CE:
		if (!(tos & ECN_MASK))
			return refuse(CONGESTION_MARK_LOST);
		tos |= CE;
		break;
	case ECT_1:
		if ((tos & ECN_MASK) == ECT_0)
			tos ^= ECT_0 ^ ECT_1;
		break;
	}
	if (tos != h->ip.tos) { /* RFC 1624, equation 3 */
		s = (__u16)~bpf_ntohs(h->ip.check) + 0xffff + tos - h->ip.tos;
		h->ip.check = bpf_htons(~((s & 0xffff) + (s >> 16)));
		h->ip.tos = tos;
	}
	return p;
}

/*
 * The kernel gathers the segments of a flow (GRO) of TCP, but not of TCP within
 * our datagrams, so it gets them unwrapped, with a mark for `in`.
 */
SEC("xdp.frags")
int early(struct xdp_md *ctx)
{
	struct {
		struct ethhdr eth;
		struct frame f;
	} __attribute__((packed)) h;
	struct {
		struct ethhdr eth;
		struct iphdr ip;
	} __attribute__((packed)) *to;
	struct mark *m;
	struct frame f;
	struct peer *p;

	if (bpf_xdp_load_bytes(ctx, 0, &h, sizeof(h)) < 0 || h.eth.h_dest[0] & 1 ||
	    h.eth.h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	f = h.f;
	if (!whole(&f, bpf_xdp_get_buff_len(ctx) - sizeof(h.eth)) || !fits(ctx, &f))
		return XDP_PASS;
	p = admit(&f);
	if (!p)
		return XDP_DROP;
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*m)))
		return XDP_PASS;
	if (bpf_xdp_adjust_head(ctx, OVERHEAD)) {
		bpf_xdp_adjust_meta(ctx, sizeof(*m));
		return XDP_PASS;
	}
	m = (void *)(long)ctx->data_meta;
	to = (void *)(long)ctx->data;
	if ((void *)(m + 1) > (void *)to || (void *)(to + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	*m = (struct mark){.magic = MAGIC, .device = device};
	to->eth = h.eth;
	to->ip = f.ip;
	p->rx_packets++;
	p->rx_bytes += bpf_ntohs(f.ip.tot_len);
	return XDP_PASS;
}

/* off: bytes of link header. */
static __always_inline int receive(struct __sk_buff *skb, __u32 off)
{
	struct mark *m = (void *)(long)skb->data_meta;
	__u32 len, segments = 1, hdr = 0;
	struct frame h;
	struct peer *p;
	__u8 tos;
	int err;

	/*
	 * `early` sees neither a VLAN's tag that the device has taken off, nor which
	 * address is the device's; what turns out to be for others here, it has
	 * counted. A VLAN that is an uplink has an `in` of its own.
	 */
	if (skb->pkt_type != PACKET_HOST || skb->vlan_tci & VID)
		return NEXT;
	if ((void *)(m + 1) <= (void *)(long)skb->data && m->magic == MAGIC && m->device == device)
		return bpf_redirect(device, BPF_F_INGRESS);

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, off, &h, sizeof(h)) < 0)
		return NEXT;
	if (h.o.ip.protocol == IPPROTO_ICMP)
		too_big(skb, off);
	if (!whole(&h, skb->len - off))
		return NEXT;
	len = bpf_ntohs(h.ip.tot_len);
	if (skb->gso_size) {
		hdr = repeated(skb, off + OVERHEAD, &h.ip);
		if (!hdr || hdr >= len)
			return NEXT;
		segments = (len - hdr + skb->gso_size - 1) / skb->gso_size;
	} else if (!fits(skb, &h)) {
		return NEXT;
	}

	tos = h.ip.tos;
	p = admit(&h);
	if (!p)
		return DROP;
	err = unwrap(skb, decap);
	if (err == -EINVAL)
		err = unwrap(skb, decap = 0);
	if (err)
		return NEXT;
	if (tos != h.ip.tos)
		bpf_skb_store_bytes(skb, off, &h.ip, sizeof(h.ip), 0);
	p->rx_packets += segments;
	p->rx_bytes += len + (segments - 1) * hdr;
	return bpf_redirect(device, BPF_F_INGRESS);
}

SEC("tcx/ingress")
int in_ether(struct __sk_buff *skb)
{
	return receive(skb, ETH_HLEN);
}

/* For an uplink without link headers: a tunnel, a modem. */
SEC("tcx/ingress")
int in_bare(struct __sk_buff *skb)
{
	return receive(skb, 0);
}

char __license[] SEC("license") = "GPL";
