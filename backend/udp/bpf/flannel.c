//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * flannel's UDP encapsulation in the kernel: one IPv4 packet is the payload of
 * one UDP datagram.
 *
 *   encap,     tc, egress of the TUN device,   encapsulate, send by the kernel's route
 *   encap_l2   ingress of the segmenter
 *   decap_l2,  tc, ingress of an uplink        check, decapsulate, pass to the TUN device
 *   decap_l3
 *   decap_xdp  XDP, driver of an uplink        checks, decapsulates before GRO
 *   observe    filter of the UDP socket        counts datagrams that passed decap by
 *
 * decap_l2 is for uplinks with an Ethernet header, decap_l3 for those without a
 * link header. Below, `decap` is either.
 *
 * A packet that a program does not handle takes the way without programs: from
 * encap to the TUN's reader, from decap to the UDP socket, from decap_xdp to
 * decap. Only decap drops: packets that the socket's reader would refuse as
 * forged, counted under the same names.
 *
 * encap sends a UDP checksum of 0 (RFC 768: none), and decap accepts no other. A
 * user-space sender computes one, which would have to be verified. It also sends
 * batches (UDP_SEGMENT); a flow's batches and single packets must take one path.
 */
#include "flannel.h"

/*
 * BPF_F_ADJ_ROOM_DECAP_L4_UDP of linux/bpf.h, if the kernel has it: removes the
 * tunnel's mark from a super-packet. With the mark, the kernel cuts it at devices
 * without tunnel offload, such as a bridge.
 */
static __u64 decap_flags = 1 << 10;

static __always_inline struct peer *find_peer(__be32 addr)
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

/* RFC 1071 over an IPv4 header without options; 0xffff if it is intact. */
static __always_inline __u16 header_sum(const struct iphdr *ip)
{
	const __u16 *w = (const void *)ip;
	__u32 s = 0;

#pragma unroll
	for (int i = 0; i < sizeof(*ip) / 2; i++)
		s += w[i];
	s = (s & 0xffff) + (s >> 16);
	return s + (s >> 16);
}

/* IPv4 without options, not a fragment. */
static __always_inline int plain_ipv4(const struct iphdr *ip)
{
	return ip->version == 4 && ip->ihl == 5 && !(ip->frag_off & bpf_htons(IP_FRAGMENT));
}

/*
 * Computes the size on the wire of the packet at off. Returns not 0 for a
 * super-packet that the programs do not handle, such as UDP's: nothing after
 * decap removes the tunnel's mark from it, so a socket without GRO would get
 * nothing.
 */
static __always_inline int measure_wire(struct __sk_buff *skb, __u32 off, const struct iphdr *ip, struct wire *w)
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

/* Time of the last packet of any flow in declined; 0: no look-up is needed. */
static __u64 last_declined;

/* Returns the way of the flow's last packet if that was not sent at once a moment ago. */
static __always_inline enum way recent_way(__u32 flow)
{
	struct declined *d;
	__u64 now;

	if (!last_declined)
		return DIRECT;
	now = bpf_ktime_get_ns();
	/* Signed: another CPU may have written a later time. */
	if ((__s64)(now - last_declined) > SECOND) {
		last_declined = 0;
		return DIRECT;
	}
	d = bpf_map_lookup_elem(&declined, &flow);
	return d && (__s64)(now - d->time) < SECOND ? d->way : DIRECT;
}

/* Has the flow's packets take the way for a while, so that they are not reordered. */
static __always_inline void note_way(__u32 flow, enum way way)
{
	struct declined now = {.time = bpf_ktime_get_ns(), .way = way}, *d = bpf_map_lookup_elem(&declined, &flow);

	if (d)
		*d = now;
	else
		bpf_map_update_elem(&declined, &flow, &now, BPF_ANY);
	last_declined = now.time;
}

static __always_inline int leave_to_reader(__u32 flow)
{
	note_way(flow, READER);
	return NEXT;
}

/* Returns the segmenter if there is one and the packet does not come from it. */
static __always_inline struct segmenter *find_segmenter(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct segmenter *s = bpf_map_lookup_elem(&segmenter, &zero);

	return s && s->in && s->out != skb->ingress_ifindex ? s : NULL;
}

/*
 * Sends a packet through the segmenter, which completes its checksums and cuts it.
 * encap_l2 gets the parts. Unlike the TUN's reader, it keeps the sender's socket
 * waiting. off: bytes of link header.
 */
static __always_inline int segment(struct __sk_buff *skb, __u32 off, __u32 flow, int note)
{
	struct segmenter *s = find_segmenter(skb);
	struct ethhdr eth = {.h_proto = bpf_htons(ETH_P_IP)};

	if (!s || (!off && bpf_skb_change_head(skb, ETH_HLEN, 0)))
		return leave_to_reader(flow);
	if (!off)
		bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0);
	if (note)
		note_way(flow, SEGMENTER);
	return bpf_redirect(s->in, 0);
}

static __always_inline int add_outer(struct __sk_buff *skb, __u64 flags)
{
	return bpf_skb_adjust_room(skb, OVERHEAD, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO | flags);
}

static __always_inline int remove_outer(struct __sk_buff *skb, __u64 flags)
{
	return bpf_skb_adjust_room(skb, -OVERHEAD, BPF_ADJ_ROOM_MAC,
				   BPF_F_ADJ_ROOM_FIXED_GSO | flags);
}

static __always_inline struct route *route_of(const struct frame *h)
{
	__u32 slot = bpf_ntohs(h->udp.source) & (ROUTES - 1);

	return bpf_map_lookup_elem(&routes, &slot);
}

/*
 * A look-up in each jiffy follows every change of routes and neighbours before user
 * space could. `r` is of this processor, which runs one program at a time.
 */
static __always_inline int fresh(const struct route *r, const struct frame *h, __u32 largest)
{
	return r->jiffy == (__u32)bpf_jiffies64() && r->daddr == h->outer.daddr && r->sport == h->udp.source &&
	       r->tos == (h->outer.tos & ~ECN_MASK) && largest <= r->largest;
}

/*
 * Looks up the kernel's route. It includes the path's MTU. Returns 0, or
 * BPF_FIB_LKUP_RET_NO_NEIGH if the kernel has to find the neighbour first, or
 * another value if the route does not carry the datagram.
 */
static __always_inline int look_up(struct __sk_buff *skb, struct bpf_fib_lookup *fib, const struct frame *h,
				   __u32 largest)
{
	fib->ifindex = device;
	fib->tos = h->outer.tos & ~ECN_MASK;
	fib->tot_len = largest;
	fib->l4_protocol = IPPROTO_UDP;
	fib->sport = h->udp.source;
	fib->dport = port;
	fib->ipv4_src = local;
	fib->ipv4_dst = h->outer.daddr;
	return bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
}

static __always_inline void remember(struct route *r, const struct bpf_fib_lookup *fib, const struct frame *h,
				     __u32 largest)
{
	r->daddr = h->outer.daddr;
	r->sport = h->udp.source;
	r->tos = h->outer.tos & ~ECN_MASK;
	r->largest = largest;
	r->uplink = fib->ifindex;
	__builtin_memcpy(r->dmac, fib->dmac, ETH_ALEN);
	__builtin_memcpy(r->smac, fib->smac, ETH_ALEN);
	r->jiffy = bpf_jiffies64();
}

/* off: bytes of link header. A TUN has none, and data begins with the IP header. */
static __always_inline int send(struct __sk_buff *skb, __u32 off)
{
	struct bpf_redir_neigh next = {.nh_family = AF_INET};
	struct bpf_fib_lookup fib = {.family = AF_INET};
	__u32 len = skb->len - off, hash;
	struct frame h = {};
	struct ethhdr eth;
	struct route *r;
	struct peer *p;
	struct wire w;
	enum way way;
	int neighbour, err;

	if (skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, off, &h.ip, sizeof(h.ip)) < 0)
		return NEXT;

	/*
	 * On a virtual link (veth, virtio) super-packets and unfinished checksums
	 * arrive as they were sent. Only decap handles them; a UDP socket would
	 * return a datagram of 64 KiB with half a TCP checksum.
	 */
	p = find_peer(h.ip.daddr);
	if (!p || !p->kernel)
		return NEXT;

	hash = bpf_get_hash_recalc(skb);
	way = recent_way(hash);
	if (way == READER)
		return NEXT;
	if (way == SEGMENTER && find_segmenter(skb))
		return segment(skb, off, hash, 0);
	if (bpf_ntohs(h.ip.tot_len) != len || len + OVERHEAD > 0xffff)
		return leave_to_reader(hash);
	if (measure_wire(skb, off, &h.ip, &w))
		return segment(skb, off, hash, 1);

	h.outer.version = 4;
	h.outer.ihl = 5;
	h.outer.tos = h.ip.tos; /* RFC 6040, RFC 2983: ECN and DSCP are copied */
	h.outer.tot_len = bpf_htons(len + OVERHEAD);
	h.outer.frag_off = bpf_htons(IP_DF);
	h.outer.ttl = 64;
	h.outer.protocol = IPPROTO_UDP;
	h.outer.saddr = local;
	h.outer.daddr = p->addr;
	h.outer.check = ~header_sum(&h.outer);
	h.udp.source = bpf_htons(PORTS | ((hash ^ hash >> 16) & ~PORTS));
	h.udp.dest = port;
	h.udp.len = bpf_htons(len + sizeof(h.udp));

	/* For a datagram that is too large for the path, the TUN's reader answers with ICMP. */
	r = route_of(&h);
	if (!r || !fresh(r, &h, w.largest + OVERHEAD)) {
		neighbour = look_up(skb, &fib, &h, w.largest + OVERHEAD);
		if (neighbour && neighbour != BPF_FIB_LKUP_RET_NO_NEIGH)
			return leave_to_reader(hash);
		if (r && !neighbour)
			remember(r, &fib, &h, w.largest + OVERHEAD);
		r = NULL;
	}

	/*
	 * FIXED_GSO: the TUN's MTU leaves room, so segments keep their size. The kernel
	 * marks a packet as a tunnel's only once: one of a tunnel within the container,
	 * or one that this host forwards, has the mark. What comes from the segmenter
	 * does without.
	 */
	err = add_outer(skb, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP);
	if (err == -EALREADY && find_segmenter(skb))
		return segment(skb, off, hash, 1);
	if (err == -EALREADY && !skb->gso_size)
		err = add_outer(skb, 0);
	if (err)
		return leave_to_reader(hash);

	/* A packet that is too large for an Ethernet header (BPF_SKB_MAX_LEN) is restored. */
	if (!off && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return remove_outer(skb, 0) ? DROP : leave_to_reader(hash);
	bpf_skb_store_bytes(skb, ETH_HLEN, &h, OVERHEAD, 0); /* there is room */

	p->tx_packets += w.packets;
	p->tx_bytes += w.bytes;
	if (off)
		p->tx_fast += w.packets;

	/* The mark is the inner packet's. A datagram of the socket has none. */
	skb->mark = 0;

	if (r) {
		__builtin_memcpy(eth.h_dest, r->dmac, ETH_ALEN);
		__builtin_memcpy(eth.h_source, r->smac, ETH_ALEN);
		eth.h_proto = bpf_htons(ETH_P_IP);
		bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0);
		return bpf_redirect(r->uplink, 0);
	}

	/*
	 * The first packet of a jiffy goes by the kernel's neighbour, which so stays in
	 * use. A packet at the TUN has the inner route, which would wait with it for the
	 * neighbour's address. Without a next hop as argument, the kernel replaces it by
	 * the outer one, at the price of another look-up.
	 */
	next.ipv4_nh = fib.ipv4_dst;
	if (off && fib.family == AF_INET)
		return bpf_redirect_neigh(fib.ifindex, &next, sizeof(next), 0);
	return bpf_redirect_neigh(fib.ifindex, NULL, 0, 0);
}

SEC("tcx/egress")
int encap(struct __sk_buff *skb)
{
	return send(skb, 0);
}

/* For an Ethernet packet of the fast path or of the segmenter. Its long way begins at the TUN. */
SEC("tcx/ingress")
int encap_l2(struct __sk_buff *skb)
{
	int action;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return DROP;
	action = send(skb, ETH_HLEN);
	return action == NEXT ? bpf_redirect(device, 0) : action;
}

/*
 * Rewrites a router's report that a datagram of encap exceeds its next link. The
 * kernel accepts a report only for a datagram of a socket, so the report gets the
 * source port of our socket. Then the route has the path's MTU, which encap reads.
 */
static __always_inline void report_too_big(struct __sk_buff *skb, __u32 off, const struct frame *h)
{
	__u32 ports = off + sizeof(*h);
	__be16 sent[2]; /* from, to */

	if (h->icmp.type != ICMP_DEST_UNREACH || h->icmp.code != ICMP_FRAG_NEEDED ||
	    !plain_ipv4(&h->outer) || h->outer.daddr != local ||
	    !plain_ipv4(&h->ip) || h->ip.protocol != IPPROTO_UDP || h->ip.saddr != local ||
	    bpf_skb_load_bytes(skb, ports, sent, sizeof(sent)) < 0 ||
	    sent[1] != port || bpf_ntohs(sent[0]) < PORTS)
		return;
	bpf_l4_csum_replace(skb, off + __builtin_offsetof(struct frame, icmp.checksum),
			    sent[0], port, sizeof(port));
	bpf_skb_store_bytes(skb, ports, (void *)&port, sizeof(port), 0);
}

/*
 * Returns true for a datagram of encap with one whole packet; size is that of all
 * after the link header. The socket's reader counts malformed datagrams.
 */
static __always_inline int whole_datagram(const struct frame *h, __u32 size)
{
	__u32 len = bpf_ntohs(h->ip.tot_len);

	return h->outer.protocol == IPPROTO_UDP && h->outer.daddr == local && h->udp.dest == port &&
	       !h->udp.check && plain_ipv4(&h->outer) && bpf_ntohs(h->outer.tot_len) == len + OVERHEAD &&
	       bpf_ntohs(h->udp.len) == len + sizeof(h->udp) && len + OVERHEAD <= size &&
	       h->ip.version == 4 && h->ip.ihl >= 5 && header_sum(&h->outer) == 0xffff;
}

/* A device drops redirected packets above its MTU. */
static __always_inline int fits_device(void *ctx, const struct frame *h)
{
	__u32 size = bpf_ntohs(h->ip.tot_len);

	return check_mtu ? !bpf_check_mtu(ctx, device, &size, 0, 0) : size <= mtu;
}

/* Returns true if this host's own routes to the peer name the interface. */
static __always_inline int arrives_by(const struct peer *p, __u32 ifindex)
{
#pragma unroll
	for (int i = 0; i < UPLINKS; i++)
		if (p->uplinks[i] == ifindex)
			return 1;
	return 0;
}

/* Returns true if the table lacks peers, and so cannot refuse one. */
static __always_inline int incomplete(void)
{
	__u32 zero = 0;
	struct masks *m = bpf_map_lookup_elem(&lengths, &zero);

	return m && m->incomplete;
}

/*
 * Returns the sender of a whole datagram, or NULL and the reason of the refusal.
 * A router's congestion mark is merged into the inner header.
 */
static __always_inline struct peer *admit(struct frame *h, enum reason *why)
{
	__u8 tos = h->ip.tos, mark = h->outer.tos & ECN_MASK;
	struct peer *p = find_peer(h->ip.saddr);
	__u32 s;

	if (!p || p->addr != h->outer.saddr) {
		*why = bpf_map_lookup_elem(&hosts, &h->outer.saddr) ? INNER_SOURCE_MISMATCH
								    : UNKNOWN_OUTER_SOURCE;
		return NULL;
	}
	*why = INNER_DESTINATION_MISMATCH;
	if ((h->ip.daddr & mask) != subnet)
		return NULL;

	/* RFC 6040, figure 4: a router's mark must reach an ECN-capable end. */
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
 * GRO joins TCP segments, but not within our datagrams. So decap_xdp decapsulates
 * before GRO and adds metadata for decap. Only decap knows the frame's final
 * destination, so it alone counts and refuses.
 */
SEC("xdp.frags")
int decap_xdp(struct xdp_md *ctx)
{
	struct ethhdr eth, *at = (void *)(long)ctx->data;
	struct frame h, *outer = (void *)(at + 1);
	struct iphdr *inner;
	struct xdp_meta *m;
	enum reason why;
	__u32 size;

	/* Drivers receive the headers into the first buffer. */
	if ((void *)(outer + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	eth = *at;
	h = *outer;
	size = frags ? bpf_xdp_get_buff_len(ctx) : ctx->data_end - ctx->data;
	if (eth.h_dest[0] & 1 || eth.h_proto != bpf_htons(ETH_P_IP) ||
	    !whole_datagram(&h, size - sizeof(eth)) || !fits_device(ctx, &h) || !admit(&h, &why) ||
	    bpf_xdp_adjust_head(ctx, OVERHEAD))
		return XDP_PASS;
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*m))) {
		bpf_xdp_adjust_head(ctx, -OVERHEAD);
		return XDP_PASS;
	}
	m = (void *)(long)ctx->data_meta;
	at = (void *)(long)ctx->data;
	inner = (void *)(at + 1);
	if ((void *)(m + 1) > (void *)at || (void *)(inner + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	*m = (struct xdp_meta){.magic = MAGIC, .device = device};
	*at = eth;
	*inner = h.ip;
	return XDP_PASS;
}

static __always_inline int refuse(enum reason why)
{
	__u64 *n = bpf_map_lookup_elem(&drops, &why);

	if (n)
		++*n;
	return DROP;
}

/* off is the length of the link header in bytes. */
static __always_inline int decap(struct __sk_buff *skb, __u32 off)
{
	struct xdp_meta *m = (void *)(long)skb->data_meta;
	enum reason why;
	struct frame h;
	struct peer *p;
	struct wire w;
	__u8 tos;
	int err;

	/*
	 * decap_xdp sees neither a VLAN tag that the device removed nor the device's
	 * address. A VLAN that is an uplink has its own decap.
	 */
	if (skb->pkt_type != PACKET_HOST || skb->vlan_tci & VID)
		return NEXT;
	if ((void *)(m + 1) <= (void *)(long)skb->data && m->magic == MAGIC && m->device == device) {
		if (bpf_skb_load_bytes(skb, off, &h.ip, sizeof(h.ip)) < 0)
			return NEXT;
		p = find_peer(h.ip.saddr);
		measure_wire(skb, off, &h.ip, &w);
		if (p && !arrives_by(p, skb->ifindex))
			return refuse(WRONG_INTERFACE);
		goto deliver;
	}

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, off, &h, sizeof(h)) < 0)
		return NEXT;
	if (h.outer.protocol == IPPROTO_ICMP)
		report_too_big(skb, off, &h);
	if (!whole_datagram(&h, skb->len - off) || (!skb->gso_size && !fits_device(skb, &h)) ||
	    measure_wire(skb, off + OVERHEAD, &h.ip, &w))
		return NEXT;
	tos = h.ip.tos;
	p = admit(&h, &why);
	if (!p)
		return why != CONGESTION_MARK_LOST && incomplete() ? NEXT : refuse(why);
	if (!arrives_by(p, skb->ifindex))
		return refuse(WRONG_INTERFACE);
	err = remove_outer(skb, decap_flags);
	if (err == -EINVAL)
		err = remove_outer(skb, decap_flags = 0);
	if (err)
		return NEXT;
	if (tos != h.ip.tos)
		bpf_skb_store_bytes(skb, off, &h.ip, sizeof(h.ip), 0);
deliver:
	if (p) {
		p->rx_packets += w.packets;
		p->rx_bytes += w.bytes;
	}
	skb->mark = 0; /* the datagram's; the TUN's writer sets none */
	/* The fast path delivers the packet, or redirects it as below. */
	if (off)
		bpf_tail_call(skb, &fast_path, 0);
	return bpf_redirect(device, BPF_F_INGRESS);
}

SEC("tcx/ingress")
int decap_l2(struct __sk_buff *skb)
{
	return decap(skb, ETH_HLEN);
}

/* For an uplink without a link header: a tunnel, a modem. */
SEC("tcx/ingress")
int decap_l3(struct __sk_buff *skb)
{
	return decap(skb, 0);
}

/*
 * Counts datagrams that decap would have taken: something led them past it. The
 * filter lets every datagram pass.
 */
SEC("socket")
int observe(struct __sk_buff *skb)
{
	__u32 zero = 0, len = skb->len;
	struct frame h;
	struct peer *p;
	__u64 *n;

	/* The filter's data begin with the UDP header. */
	if (bpf_skb_load_bytes_relative(skb, 0, &h, sizeof(h), BPF_HDR_START_NET) < 0 ||
	    !whole_datagram(&h, len + sizeof(h.outer)) ||
	    (!skb->gso_size && bpf_ntohs(h.ip.tot_len) > mtu))
		return len;
	p = find_peer(h.ip.saddr);
	if (!p || p->addr != h.outer.saddr || !arrives_by(p, skb->ifindex))
		return len;
	n = bpf_map_lookup_elem(&passed, &zero);
	if (n)
		__sync_fetch_and_add(n, 1);
	return len;
}

char __license[] SEC("license") = "GPL";
