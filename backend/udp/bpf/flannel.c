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
 * TUN's reader, from `in` to the UDP socket, from `early` to `in`. Only `in`
 * drops, and only what the reader of the socket would refuse as forged, under
 * the same names.
 *
 * What `out` sends is told by its UDP checksum of 0 (RFC 768: none), and `in`
 * takes nothing else. A datagram of a user-space sender has one, and would need
 * it verified first; such senders also batch (UDP_SEGMENT), and a flow must not
 * have its batches take one path and its single packets the other.
 */
#include "flannel.h"

/*
 * BPF_F_ADJ_ROOM_DECAP_L4_UDP of linux/bpf.h, for kernels that have it: takes
 * the mark of the tunnel off a super-packet. Under that mark, devices that
 * carry no tunnels in hardware, such as a bridge, have it cut.
 */
static __u64 decap = 1 << 10;

static __always_inline struct peer *find(__be32 addr)
{
	__u32 zero = 0;
	struct masks *m = bpf_map_lookup_elem(&lengths, &zero);

	for (int i = 0; m && i < 33 && m->mask[i]; i++) {
		struct key k = {.mask = m->mask[i], .subnet = addr & m->mask[i]};
		struct peer *p = bpf_map_lookup_elem(&peers, &k);

		if (p)
			return p;
	}
	return NULL;
}

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

/* IPv4, without options, and no fragment. */
static __always_inline int plain(const struct iphdr *ip)
{
	return ip->version == 4 && ip->ihl == 5 && !(ip->frag_off & bpf_htons(IP_FRAGMENT));
}

/*
 * What the packet at off is on the wire. It is not 0 for a super-packet that is
 * to be left alone, as those of UDP: after `in` nothing takes the mark of the
 * tunnel off them, and a socket that wants them split gets none.
 */
static __always_inline int measure(struct __sk_buff *skb, __u32 off, const struct iphdr *ip, struct wire *w)
{
	__u32 len = bpf_ntohs(ip->tot_len), hdr = ip->ihl * 4, segment = skb->gso_size;
	__u8 words = sizeof(struct udphdr) / 4 << 4;

	*w = (struct wire){.packets = 1, .bytes = len, .largest = len};
	if (!segment)
		return 0;
	if (ip->protocol == IPPROTO_TCP && bpf_skb_load_bytes(skb, off + hdr + 12, &words, sizeof(words)) < 0)
		return -EINVAL;
	hdr += (words >> 4) * 4; /* what each segment repeats */
	if (hdr >= len)
		return -EINVAL;
	w->packets = (len - hdr + segment - 1) / segment;
	w->bytes += (w->packets - 1) * hdr;
	w->largest = hdr + segment;
	return ip->protocol == IPPROTO_TCP ? 0 : -EINVAL;
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
	struct bpf_fib_lookup fib = {.family = AF_INET};
	__u32 len = skb->len, hash, slot;
	struct frame h = {};
	struct peer *p;
	struct wire w;
	__u64 *flow;

	/* A TUN has no link header: data is the IP header. */
	if (skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, 0, &h.ip, sizeof(h.ip)) < 0)
		return NEXT;

	/*
	 * On a virtual link (veth, virtio) a super-packet and a checksum that is
	 * left to the hardware arrive as they were sent. Only a kernel that takes
	 * them by `in` can make sense of either; a UDP socket would hand out a
	 * datagram of 64 KiB with half a TCP checksum.
	 */
	p = find(h.ip.daddr);
	if (!p || !p->kernel)
		return NEXT;

	hash = bpf_get_hash_recalc(skb);
	slot = hash % FLOWS;
	flow = bpf_map_lookup_elem(&declined, &slot);
	if (!flow || (*flow && bpf_ktime_get_ns() - *flow < SECOND))
		return NEXT;
	if (*flow) /* leave the cache line to other processors */
		*flow = 0;

	if (bpf_ntohs(h.ip.tot_len) != len || len + OVERHEAD > 0xffff || measure(skb, 0, &h.ip, &w))
		return decline(flow);

	h.outer.version = 4;
	h.outer.ihl = 5;
	h.outer.tos = h.ip.tos; /* RFC 6040 and RFC 2983: ECN and DSCP show outside */
	h.outer.tot_len = bpf_htons(len + OVERHEAD);
	h.outer.frag_off = bpf_htons(IP_DF);
	h.outer.ttl = 64;
	h.outer.protocol = IPPROTO_UDP;
	h.outer.saddr = local;
	h.outer.daddr = p->addr;
	h.outer.check = ~sum(&h.outer);
	h.udp.source = bpf_htons(PORTS | ((hash ^ hash >> 16) & ~PORTS));
	h.udp.dest = port;
	h.udp.len = bpf_htons(len + sizeof(h.udp));

	/*
	 * The route is asked for every packet, so that it need not be watched. It
	 * knows about a path's MTU; for a packet larger than that (tot_len), the
	 * reader of the TUN answers with ICMP, as the sender would expect.
	 */
	fib.ifindex = device;
	fib.tos = h.ip.tos & ~ECN_MASK;
	fib.tot_len = w.largest + OVERHEAD;
	fib.l4_protocol = IPPROTO_UDP;
	fib.sport = h.udp.source;
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
	bpf_skb_store_bytes(skb, ETH_HLEN, &h, OVERHEAD, 0); /* there is room */

	p->tx_packets += w.packets;
	p->tx_bytes += w.bytes;

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
static __always_inline void too_big(struct __sk_buff *skb, __u32 off, const struct frame *h)
{
	__u32 ports = off + sizeof(*h);
	__be16 sent[2]; /* from, to */

	if (h->icmp.type != ICMP_DEST_UNREACH || h->icmp.code != ICMP_FRAG_NEEDED ||
	    !plain(&h->outer) || h->outer.daddr != local ||
	    !plain(&h->ip) || h->ip.protocol != IPPROTO_UDP || h->ip.saddr != local ||
	    bpf_skb_load_bytes(skb, ports, sent, sizeof(sent)) < 0 ||
	    sent[1] != port || bpf_ntohs(sent[0]) < PORTS)
		return;
	bpf_l4_csum_replace(skb, off + __builtin_offsetof(struct frame, icmp.checksum),
			    sent[0], port, sizeof(port));
	bpf_skb_store_bytes(skb, ports, (void *)&port, sizeof(port), 0);
}

/*
 * Whether that begins a datagram of `out` with one whole packet; size is that
 * of all behind the link header. Odd ones are for the socket: its reader counts
 * what is malformed.
 */
static __always_inline int whole(const struct frame *h, __u32 size)
{
	__u32 len = bpf_ntohs(h->ip.tot_len);

	return h->outer.protocol == IPPROTO_UDP && h->outer.daddr == local && h->udp.dest == port &&
	       !h->udp.check && plain(&h->outer) && bpf_ntohs(h->outer.tot_len) == len + OVERHEAD &&
	       bpf_ntohs(h->udp.len) == len + sizeof(h->udp) && len + OVERHEAD <= size &&
	       h->ip.version == 4 && h->ip.ihl >= 5 && sum(&h->outer) == 0xffff;
}

/* A device drops what is above its MTU if it is redirected there. */
static __always_inline int fits(void *ctx, const struct frame *h)
{
	__u32 mtu = bpf_ntohs(h->ip.tot_len);

	return !bpf_check_mtu(ctx, device, &mtu, 0, 0);
}

/*
 * The sender of a whole datagram; NULL if it is to be refused, and why. The
 * inner header gets what a router's mark makes of it.
 */
static __always_inline struct peer *admit(struct frame *h, enum reason *why)
{
	__u8 tos = h->ip.tos, mark = h->outer.tos & ECN_MASK;
	struct peer *p = find(h->ip.saddr);
	__u32 s;

	if (!p || p->addr != h->outer.saddr) {
		*why = bpf_map_lookup_elem(&hosts, &h->outer.saddr) ? INNER_SOURCE_MISMATCH
								    : UNKNOWN_OUTER_SOURCE;
		return NULL;
	}
	*why = INNER_DESTINATION_MISMATCH;
	if ((h->ip.daddr & mask) != subnet)
		return NULL;

	/* RFC 6040, figure 4: a router's mark must reach an end that can see it. */
	*why = CONGESTION_MARK_LOST;
	if (mark == CE && !(tos & ECN_MASK))
		return NULL;
	if (mark == CE || (mark == ECT_1 && (tos & ECN_MASK) == ECT_0))
		tos = (tos & ~ECN_MASK) | mark;
	if (tos != h->ip.tos) { /* RFC 1624, equation 3 */
		s = (__u16)~bpf_ntohs(h->ip.check) + 0xffff + tos - h->ip.tos;
		h->ip.check = bpf_htons(~((s & 0xffff) + (s >> 16)));
		h->ip.tos = tos;
	}
	return p;
}

/*
 * The kernel gathers the segments of a flow (GRO) of TCP, but not of TCP within
 * our datagrams, so it gets them unwrapped, with a mark for `in`. That one knows
 * better whom a frame is for, and so it alone counts and refuses.
 */
SEC("xdp.frags")
int early(struct xdp_md *ctx)
{
	struct ethhdr eth;
	struct frame h;
	struct mark *m;
	enum reason why;

	if (bpf_xdp_load_bytes(ctx, 0, &eth, sizeof(eth)) < 0 || eth.h_dest[0] & 1 ||
	    eth.h_proto != bpf_htons(ETH_P_IP) ||
	    bpf_xdp_load_bytes(ctx, sizeof(eth), &h, sizeof(h)) < 0 ||
	    !whole(&h, bpf_xdp_get_buff_len(ctx) - sizeof(eth)) || !fits(ctx, &h) || !admit(&h, &why) ||
	    bpf_xdp_adjust_head(ctx, OVERHEAD))
		return XDP_PASS;
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*m))) {
		bpf_xdp_adjust_head(ctx, -OVERHEAD);
		return XDP_PASS;
	}
	m = (void *)(long)ctx->data_meta;
	if ((void *)(m + 1) > (void *)(long)ctx->data)
		return XDP_ABORTED;
	*m = (struct mark){.magic = MAGIC, .device = device};
	bpf_xdp_store_bytes(ctx, 0, &eth, sizeof(eth));
	bpf_xdp_store_bytes(ctx, sizeof(eth), &h.ip, sizeof(h.ip));
	return XDP_PASS;
}

static __always_inline int refuse(enum reason why)
{
	__u64 *n = bpf_map_lookup_elem(&drops, &why);

	if (n)
		++*n;
	return DROP;
}

/* off: bytes of link header. */
static __always_inline int receive(struct __sk_buff *skb, __u32 off)
{
	struct mark *m = (void *)(long)skb->data_meta;
	enum reason why;
	struct frame h;
	struct peer *p;
	struct wire w;
	__u8 tos;
	int err;

	/*
	 * `early` sees neither a VLAN's tag that the device has taken off, nor which
	 * address is the device's. A VLAN that is an uplink has an `in` of its own.
	 */
	if (skb->pkt_type != PACKET_HOST || skb->vlan_tci & VID)
		return NEXT;
	if ((void *)(m + 1) <= (void *)(long)skb->data && m->magic == MAGIC && m->device == device) {
		if (bpf_skb_load_bytes(skb, off, &h.ip, sizeof(h.ip)) < 0)
			return NEXT;
		p = find(h.ip.saddr);
		measure(skb, off, &h.ip, &w);
		goto deliver;
	}

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, off, &h, sizeof(h)) < 0)
		return NEXT;
	if (h.outer.protocol == IPPROTO_ICMP)
		too_big(skb, off, &h);
	if (!whole(&h, skb->len - off) || (!skb->gso_size && !fits(skb, &h)) ||
	    measure(skb, off + OVERHEAD, &h.ip, &w))
		return NEXT;
	tos = h.ip.tos;
	p = admit(&h, &why);
	if (!p)
		return refuse(why);
	err = unwrap(skb, decap);
	if (err == -EINVAL)
		err = unwrap(skb, decap = 0);
	if (err)
		return NEXT;
	if (tos != h.ip.tos)
		bpf_skb_store_bytes(skb, off, &h.ip, sizeof(h.ip), 0);
deliver:
	if (p) {
		p->rx_packets += w.packets;
		p->rx_bytes += w.bytes;
	}
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
