//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * flannel's UDP encapsulation in the kernel: one packet is the payload of one UDP
 * datagram. Each is of IPv4 or IPv6.
 *
 *   encap,     tc, egress of the TUN device,   encapsulate, send by the kernel's route
 *   encap_l2   ingress of the segmenter
 *   decap_l2,  tc, ingress of an uplink        check, decapsulate, pass to the TUN device
 *   decap_l3
 *   decap_xdp  XDP, driver of an uplink        checks, decapsulates before GRO
 *   joined     ingress of the segmenter        passes what GRO has joined to the TUN device
 *   observe    filter of the UDP socket        counts datagrams that passed decap by
 *
 * decap_l2 is for uplinks with an Ethernet header, decap_l3 for those without a
 * link header. Below, `decap` is either.
 *
 * A packet that a program does not handle takes the way without programs. From encap
 * this is the TUN's reader, from decap the UDP socket, from decap_xdp decap. Only
 * decap drops: packets that the socket's reader would refuse as forged, counted
 * under the same names.
 *
 * encap sends a UDP checksum of 0 (RFC 768: none), and decap accepts no other. A
 * user-space sender computes one, which would have to be verified. It also sends
 * batches (UDP_SEGMENT); a flow's batches and single packets must take one path.
 * IPv6 permits a checksum of 0 for tunnels (RFC 6935). decap refuses a datagram with
 * damaged addresses: they must agree with those of the packet (RFC 6936 section 5).
 */
#include "flannel.h"
#include "family.h"

/* Linux 6.3: the packet that is left is of another family. */
#define DECAP_L3(f) ((f) == 6 ? 1 << 8 : 1 << 7)

/*
 * Computes the size on the wire of the packet at off. Returns not 0 for a
 * super-packet that the programs do not handle, such as UDP's. Nothing after
 * decap removes the tunnel's mark from it. So a socket without GRO would get
 * nothing.
 */
static __always_inline int measure_wire(struct __sk_buff *skb, __u32 off, const union header *ip, struct wire *w,
					const int f)
{
	__u32 len = length_of(ip, f), segment = skb->gso_size;
	__u32 hdr = f == 6 ? sizeof(ip->v6) : ip->v4.ihl * 4;
	__u8 protocol = f == 6 ? ip->v6.nexthdr : ip->v4.protocol;
	__u8 words = sizeof(struct udphdr) / 4 << 4;

	*w = (struct wire){.packets = 1, .bytes = len, .largest = len};
	if (!segment)
		return 0;
	if (protocol == IPPROTO_TCP && bpf_skb_load_bytes(skb, off + hdr + 12, &words, sizeof(words)) < 0)
		return -EINVAL;
	hdr += (words >> 4) * 4; /* what each segment repeats */
	if (hdr >= len)
		return -EINVAL;
	w->packets = (len - hdr + segment - 1) / segment;
	w->bytes += (w->packets - 1) * hdr;
	w->largest = hdr + segment;
	return protocol == IPPROTO_TCP ? 0 : -EINVAL;
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
static __always_inline int segment(struct __sk_buff *skb, __u32 off, __u32 flow, int note, const int f)
{
	struct segmenter *s = find_segmenter(skb);
	struct ethhdr eth = {.h_proto = ethertype(f)};

	if (!s || (!off && bpf_skb_change_head(skb, ETH_HLEN, 0)))
		return leave_to_reader(flow);
	if (!off)
		bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0);
	if (note)
		note_way(flow, SEGMENTER);
	return bpf_redirect(s->in, 0);
}

static __always_inline int add_outer(struct __sk_buff *skb, __u64 flags, const int o)
{
	return bpf_skb_adjust_room(skb, overhead(o), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO | flags);
}

static __always_inline int remove_outer(struct __sk_buff *skb, __u64 flags, const int o)
{
	return bpf_skb_adjust_room(skb, -overhead(o), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO | flags);
}

static __always_inline struct route *route_of(const struct frame *h)
{
	__u32 slot = bpf_ntohs(h->udp.source) & (ROUTES - 1);

	return bpf_map_lookup_elem(&routes, &slot);
}

static __always_inline __u16 kind_of(const struct frame *h, const int o)
{
	return (outer_tos(h, o) & ~ECN_MASK) | o << 8;
}

/*
 * A look-up in each jiffy follows every change of routes and neighbours before user
 * space could. `r` is of this processor, which runs one program at a time.
 */
static __always_inline int fresh(const struct route *r, const struct frame *h, __u32 largest, const int o)
{
	return r->jiffy == (__u32)bpf_jiffies64() && leads_to(r, h, o) && r->sport == h->udp.source &&
	       r->kind == kind_of(h, o) && largest <= r->largest;
}

/*
 * Looks up the kernel's route. It includes the path's MTU. Returns 0, or
 * BPF_FIB_LKUP_RET_NO_NEIGH if the kernel has to find the neighbour first, or
 * another value if the route does not carry the datagram.
 */
static __always_inline int look_up(struct __sk_buff *skb, struct bpf_fib_lookup *fib, const struct frame *h,
				   __u32 largest, const int o)
{
	describe_route(fib, h, o);
	fib->tot_len = largest;
	return bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
}

static __always_inline void remember(struct route *r, const struct bpf_fib_lookup *fib, const struct frame *h,
				     __u32 largest, const int o)
{
	if (o == 6)
		__builtin_memcpy(r->daddr, &h->outer6.daddr, sizeof(r->daddr));
	else
		r->daddr[0] = h->outer4.daddr;
	r->sport = h->udp.source;
	r->kind = kind_of(h, o);
	r->largest = largest;
	r->uplink = fib->ifindex;
	__builtin_memcpy(r->dmac, fib->dmac, ETH_ALEN);
	__builtin_memcpy(r->smac, fib->smac, ETH_ALEN);
	r->jiffy = bpf_jiffies64();
}

/*
 * The first packet of a jiffy goes by the kernel's neighbour, which so stays in
 * use. A packet at the TUN has the inner route, which would wait with it for the
 * neighbour's address. Without a next hop as argument, the kernel replaces it by
 * the outer one, at the price of another look-up.
 */
static __always_inline int redirect_by_neighbour(const struct bpf_fib_lookup *fib, __u32 off, const int o)
{
	struct bpf_redir_neigh next = {.nh_family = o == 6 ? AF_INET6 : AF_INET};

	if (!off || fib->family != next.nh_family)
		return bpf_redirect_neigh(fib->ifindex, NULL, 0, 0);
	if (o == 6)
		__builtin_memcpy(next.ipv6_nh, fib->ipv6_dst, sizeof(next.ipv6_nh));
	else
		next.ipv4_nh = fib->ipv4_dst;
	return bpf_redirect_neigh(fib->ifindex, &next, sizeof(next), 0);
}

/* Sends the packet of h to a peer. flow is a hash. */
static __always_inline int encapsulate(struct __sk_buff *skb, __u32 off, struct frame *h, struct peer *p,
				       const struct wire *w, __u32 flow, const int f, const int o)
{
	__u32 largest = w->largest + overhead(o);
	struct ethhdr *eth = link_of(h, o);
	struct bpf_fib_lookup fib;
	struct route *r;
	int neighbour, err;

	write_outer(h, p, skb->len - off, tos_of(&h->ip, f), flow ^ flow >> 16, o);

	/* For a datagram that is too large for the path, the TUN's reader answers with ICMP. */
	r = route_of(h);
	if (!r || !fresh(r, h, largest, o)) {
		neighbour = look_up(skb, &fib, h, largest, o);
		if (neighbour && neighbour != BPF_FIB_LKUP_RET_NO_NEIGH)
			return leave_to_reader(flow);
		if (r && !neighbour)
			remember(r, &fib, h, largest, o);
		r = NULL;
	}

	/*
	 * FIXED_GSO: the TUN's MTU leaves room, so segments keep their size. The kernel
	 * marks a packet as a tunnel's only once: one of a tunnel within the container,
	 * or one that this host forwards, has the mark. What comes from the segmenter
	 * does without, unless the kernel has to learn of another family.
	 */
	err = add_outer(skb, BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
				     (o == 6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4), o);
	if (err == -EALREADY && find_segmenter(skb))
		return segment(skb, off, flow, 1, f);
	if (err == -EALREADY && !skb->gso_size && f == o)
		err = add_outer(skb, 0, o);
	if (err)
		return leave_to_reader(flow);

	/* A packet that is too large for an Ethernet header (BPF_SKB_MAX_LEN) is restored. */
	if (!off && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return remove_outer(skb, 0, o) ? DROP : leave_to_reader(flow);
	p->tx_packets += w->packets;
	p->tx_bytes += w->bytes;
	if (off)
		p->tx_fast += w->packets;

	/* The mark is the inner packet's. A datagram of the socket has none. */
	skb->mark = 0;

	/* There is room for the headers. */
	if (!r) {
		bpf_skb_store_bytes(skb, ETH_HLEN, outer_of(h, o), overhead(o), 0);
		return redirect_by_neighbour(&fib, off, o);
	}
	__builtin_memcpy(eth->h_dest, r->dmac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, r->smac, ETH_ALEN);
	eth->h_proto = ethertype(o);
	bpf_skb_store_bytes(skb, 0, eth, ETH_HLEN + overhead(o), 0);
	return bpf_redirect(r->uplink, 0);
}

static __always_inline int send_packet(struct __sk_buff *skb, __u32 off, const int f)
{
	__u32 len = skb->len - off, flow;
	struct frame h;
	struct peer *p;
	struct wire w;
	enum way way;

	if (bpf_skb_load_bytes(skb, off, &h.ip, header_len(f)) < 0)
		return NEXT;

	/*
	 * On a virtual link (veth, virtio) super-packets and unfinished checksums
	 * arrive as they were sent. Only decap handles them; a UDP socket would
	 * return a datagram of 64 KiB with half a TCP checksum.
	 */
	p = find_destination(&h.ip, f);
	if (!p || !p->outer)
		return NEXT;

	flow = bpf_get_hash_recalc(skb);
	way = recent_way(flow);
	if (way == READER)
		return NEXT;
	if (way == SEGMENTER && find_segmenter(skb))
		return segment(skb, off, flow, 0, f);
	if (length_of(&h.ip, f) != len || len + overhead(6) > 0xffff)
		return leave_to_reader(flow);
	if (measure_wire(skb, off, &h.ip, &w, f))
		return segment(skb, off, flow, 1, f);
	return p->outer == 6 ? encapsulate(skb, off, &h, p, &w, flow, f, 6) : encapsulate(skb, off, &h, p, &w, flow, f, 4);
}

/* off: bytes of link header. A TUN has none, and data begins with the IP header. */
static __always_inline int send(struct __sk_buff *skb, __u32 off)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return send_packet(skb, off, 4);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return send_packet(skb, off, 6);
	return NEXT;
}

SEC("tcx/egress")
int encap(struct __sk_buff *skb)
{
	return send(skb, 0);
}

/*
 * The long way of an Ethernet packet begins at the TUN. The kernel itself sends
 * multicast of IPv6 into the segmenter.
 */
static __always_inline int pass_to_reader(struct __sk_buff *skb)
{
	__u8 to;

	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + __builtin_offsetof(struct ipv6hdr, daddr), &to, sizeof(to)) < 0 ||
		    to == MULTICAST)
			return DROP;
	} else if (skb->protocol != bpf_htons(ETH_P_IP)) {
		return DROP;
	}
	return bpf_redirect(device, 0);
}

/* For an Ethernet packet of the fast path or of the segmenter. */
SEC("tcx/ingress")
int encap_l2(struct __sk_buff *skb)
{
	int action = send(skb, ETH_HLEN);

	return action == NEXT ? pass_to_reader(skb) : action;
}

/*
 * Rewrites a router's report that a datagram of encap exceeds its next link. The kernel
 * accepts a report only for a datagram of a socket. So the report gets the source port
 * of our socket. Then the route has the path's MTU, which encap reads.
 * at: of the reported datagram's ports.
 */
static __always_inline void rewrite_report(struct __sk_buff *skb, __u32 checksum, __u32 at)
{
	__be16 sent[2]; /* from, to */

	if (bpf_skb_load_bytes(skb, at, sent, sizeof(sent)) < 0 || sent[1] != port || bpf_ntohs(sent[0]) < PORTS)
		return;
	bpf_l4_csum_replace(skb, checksum, sent[0], port, sizeof(port));
	bpf_skb_store_bytes(skb, at, (void *)&port, sizeof(port), 0);
}

static __always_inline void report_too_big(struct __sk_buff *skb, __u32 off, const struct frame *h, const int o)
{
	__u32 reported = off + overhead(o), checksum = off + header_len(o) + 2;
	struct ipv6hdr ip;

	if (o == 4 && h->icmp.type == ICMP_DEST_UNREACH && h->icmp.code == ICMP_FRAG_NEEDED &&
	    plain_ipv4(&h->outer4) && h->outer4.daddr == local && plain_ipv4(&h->ip.v4) &&
	    h->ip.v4.protocol == IPPROTO_UDP && h->ip.v4.saddr == local)
		rewrite_report(skb, checksum, reported + sizeof(h->ip.v4));
	if (o == 6 && h->icmp.type == ICMPV6_PKT_TOOBIG && same6(h->outer6.daddr.s6_addr32, local6) &&
	    bpf_skb_load_bytes(skb, reported, &ip, sizeof(ip)) == 0 && ip.version == 6 &&
	    ip.nexthdr == IPPROTO_UDP && same6(ip.saddr.s6_addr32, local6))
		rewrite_report(skb, checksum, reported + sizeof(ip));
}

/* Returns true for a datagram of encap. The socket's reader counts malformed ones. */
static __always_inline int from_encap(const struct frame *h, const int o)
{
	return for_us(h, o) && h->udp.dest == port && !h->udp.check;
}

/*
 * Returns true if the datagram holds one whole packet, and the programs can unwrap it;
 * size is that of all after the link header.
 */
static __always_inline int whole_packet(const struct frame *h, __u32 size, const int f, const int o)
{
	__u32 len = length_of(&h->ip, f);

	return outer_fits(h, len, o) && bpf_ntohs(h->udp.len) == len + sizeof(h->udp) && len + overhead(o) <= size &&
	       begins_packet(&h->ip, f) && (f == o || mixed);
}

/* Returns true if this host's own routes to the peer name the interface. */
static __always_inline int arrives_by(const struct peer *p, __u32 ifindex, const int o)
{
	const __u32 *uplinks = uplinks_of(p, o);

#pragma unroll
	for (int i = 0; i < UPLINKS; i++)
		if (uplinks[i] == ifindex)
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

/* Returns the peer whose subnet has the packet and whose host sent the datagram, or NULL and the reason. */
static __always_inline struct peer *sender_of(const struct frame *h, enum reason *why, const int f, const int o)
{
	struct peer *p = find_source(&h->ip, f);

	if (!p || !is_from(h, p, o)) {
		struct host host = host_of(h, o);

		*why = bpf_map_lookup_elem(&hosts, &host) ? INNER_SOURCE_MISMATCH : UNKNOWN_OUTER_SOURCE;
		return NULL;
	}
	return p;
}

/*
 * Merges a router's congestion mark into the inner header. Returns false if the mark
 * would be lost. RFC 6040, figure 4: it must reach an ECN-capable end.
 */
static __always_inline int merge_mark(struct frame *h, const int f, const int o)
{
	__u8 tos = tos_of(&h->ip, f), mark = outer_tos(h, o) & ECN_MASK;

	if (mark == CE && !(tos & ECN_MASK))
		return 0;
	if (mark == CE || (mark == ECT_1 && (tos & ECN_MASK) == ECT_0))
		set_tos(&h->ip, (tos & ~ECN_MASK) | mark, f);
	return 1;
}

/* Returns the sender of a whole datagram and merges its mark, or returns NULL and the reason of the refusal. */
static __always_inline struct peer *admit(struct frame *h, enum reason *why, const int f, const int o)
{
	struct peer *p = sender_of(h, why, f, o);

	if (!p)
		return NULL;
	*why = INNER_DESTINATION_MISMATCH;
	if (!for_subnet(&h->ip, f))
		return NULL;
	*why = CONGESTION_MARK_LOST;
	return merge_mark(h, f, o) ? p : NULL;
}

/*
 * Returns true for a frame that decap_xdp may unwrap. decap looks up the sender, once
 * for all that GRO has joined. But it cannot give an unwrapped packet to the socket.
 */
static __always_inline int may_unwrap(struct frame *h, __u32 size, const int f, const int o)
{
	enum reason why;

	return whole_packet(h, size, f, o) && length_of(&h->ip, f) <= mtu && for_subnet(&h->ip, f) &&
	       (!incomplete() || sender_of(h, &why, f, o)) && merge_mark(h, f, o);
}

/* Removes the outer headers of a frame, or leaves them. h is in the frame. */
static __always_inline int unwrap_frame(struct xdp_md *ctx, struct ethhdr *eth, struct frame *h, __u32 size,
					const int f, const int o)
{
	struct addresses addresses = *(struct addresses *)eth;
	struct xdp_meta meta = {.magic = MAGIC(o), .device = device}, *m;

	if (!may_unwrap(h, size, f, o))
		return XDP_PASS;
	note_source(&meta, h, o);
	if (bpf_xdp_adjust_head(ctx, overhead(o)))
		return XDP_PASS;
	if (bpf_xdp_adjust_meta(ctx, -meta_len(o))) {
		bpf_xdp_adjust_head(ctx, -overhead(o));
		return XDP_PASS;
	}
	m = (void *)(long)ctx->data_meta;
	eth = (void *)(long)ctx->data;
	if ((void *)m + meta_len(o) > (void *)eth || (void *)(eth + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	__builtin_memcpy(m, &meta, meta_len(o));
	*(struct addresses *)eth = addresses;
	eth->h_proto = ethertype(f);
	return XDP_PASS;
}

static __always_inline int unwrap_frame_of(struct xdp_md *ctx, struct ethhdr *eth, const int o)
{
	void *end = (void *)(long)ctx->data_end;
	__u32 size = (frags ? bpf_xdp_get_buff_len(ctx) : ctx->data_end - ctx->data) - sizeof(*eth);
	struct frame *h = (void *)(eth + 1) - outer_offset(o);

	/* Drivers receive the headers into the first buffer. */
	if ((void *)(&h->ip.v4 + 1) > end || !from_encap(h, o))
		return XDP_PASS;
	if (h->ip.v4.version != 6)
		return unwrap_frame(ctx, eth, h, size, 4, o);
	if ((void *)(&h->ip.v6 + 1) > end)
		return XDP_PASS;
	return unwrap_frame(ctx, eth, h, size, 6, o);
}

/*
 * GRO joins TCP segments, but not within our datagrams. So decap_xdp decapsulates
 * before GRO and adds metadata for decap. GRO does not join packets with different
 * metadata. Only decap knows the frame's final destination, so it alone counts and
 * refuses.
 */
SEC("xdp.frags")
int decap_xdp(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) > (void *)(long)ctx->data_end || eth->h_dest[0] & 1)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return unwrap_frame_of(ctx, eth, 4);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return unwrap_frame_of(ctx, eth, 6);
	return XDP_PASS;
}

static __always_inline int refuse(enum reason why)
{
	__u64 *n = bpf_map_lookup_elem(&drops, &why);

	if (n)
		++*n;
	return DROP;
}

static __always_inline void count_received(struct peer *p, const struct wire *w)
{
	p->rx_packets += w->packets;
	p->rx_bytes += w->bytes;
}

/* Passes an unwrapped packet to the TUN device. */
static __always_inline int deliver(struct __sk_buff *skb, __u32 off)
{
	skb->mark = 0; /* the datagram's; the TUN's writer sets none */
	/* The fast path delivers the packet, or redirects it as below. */
	if (off)
		bpf_tail_call(skb, &fast_path, 0);
	return bpf_redirect(device, BPF_F_INGRESS);
}

/*
 * Returns true if the segment follows others of its flow that came one by one. All
 * packets of TCP of such a flow take the way of the segments, so that none overtakes
 * them. A super-packet ends that: its link has no need of it.
 */
static __always_inline int follows_train(struct __sk_buff *skb, const struct frame *h, const struct wire *w)
{
	__u32 slot = bpf_ntohs(h->udp.source) & (TRAINS - 1), *n = bpf_map_lookup_elem(&trains, &slot);

	if (!n)
		return 0;
	if (skb->gso_size)
		*n = 0;
	else if (w->bytes > mtu / 2)
		*n += *n < LONGEST;
	else
		*n -= *n > 0;
	return *n > TRAIN;
}

/* Returns the segmenter if it joins the segments of TCP of the packet's uplink, or NULL. */
static __always_inline struct segmenter *find_joiner(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct segmenter *s = bpf_map_lookup_elem(&segmenter, &zero);

#pragma unroll
	for (int i = 0; i < UPLINKS; i++)
		if (s && s->joined[i] == skb->ifindex)
			return s;
	return NULL;
}

/* The mark of packets from decap at the segmenter's end. */
#define UNWRAPPED 0x666c6e75 /* "flnu" */

/* Passes an unwrapped packet on by the segmenter, where GRO joins it with others, or delivers it. */
static __always_inline int join(struct __sk_buff *skb, __u32 off, const struct frame *h, const struct wire *w,
				const int f, const int o)
{
	__u8 protocol = f == 6 ? h->ip.v6.nexthdr : h->ip.v4.protocol;
	__be16 proto = ethertype(f);
	struct segmenter *s;

	if (!off || protocol != IPPROTO_TCP || skb->vlan_present)
		return deliver(skb, off);
	s = find_joiner(skb);
	if (!s || !follows_train(skb, h, w))
		return deliver(skb, off);
	if (f != o)
		bpf_skb_store_bytes(skb, __builtin_offsetof(struct ethhdr, h_proto), &proto, sizeof(proto), 0);
	skb->mark = UNWRAPPED;
	return bpf_redirect(s->out, 0);
}

/* The kernel itself sends multicast of IPv6 into the segmenter. */
SEC("tcx/ingress")
int joined(struct __sk_buff *skb)
{
	if (skb->mark != UNWRAPPED)
		return NEXT;
	bpf_skb_change_type(skb, PACKET_HOST); /* the address is the uplink's */
	return deliver(skb, ETH_HLEN);
}

/*
 * Delivers a packet that decap_xdp has unwrapped. Without a source of the datagram, it is
 * decap_xdp of an earlier release, which looks up the sender itself.
 */
static __always_inline int pass_unwrapped(struct __sk_buff *skb, __u32 off, const struct xdp_meta *m, const int f, const int o)
{
	int sourced = (void *)m + meta_len(o) <= (void *)(long)skb->data;
	enum reason why = UNKNOWN_OUTER_SOURCE;
	struct frame h;
	struct peer *p;
	struct wire w;

	if (sourced)
		restore_source(&h, m, o);
	if (bpf_skb_load_bytes(skb, off, &h.ip, header_len(f)) < 0)
		return NEXT;
	p = sourced ? sender_of(&h, &why, f, o) : find_source(&h.ip, f);
	if (!p)
		return refuse(why);
	if (!arrives_by(p, skb->ifindex, o))
		return refuse(WRONG_INTERFACE);
	measure_wire(skb, off, &h.ip, &w, f);
	count_received(p, &w);
	return deliver(skb, off);
}

static __always_inline int pass_unwrapped_of(struct __sk_buff *skb, __u32 off, const struct xdp_meta *m, const int o)
{
	return skb->protocol == bpf_htons(ETH_P_IPV6) ? pass_unwrapped(skb, off, m, 6, o) : pass_unwrapped(skb, off, m, 4, o);
}

static __always_inline int unwrap(struct __sk_buff *skb, __u32 off, struct frame *h, const int f, const int o)
{
	__u64 family = f == o ? 0 : DECAP_L3(f);
	__u8 tos = tos_of(&h->ip, f);
	enum reason why;
	struct peer *p;
	struct wire w;

	if (!whole_packet(h, skb->len - off, f, o) || (!skb->gso_size && length_of(&h->ip, f) > mtu) ||
	    measure_wire(skb, off + overhead(o), &h->ip, &w, f))
		return NEXT;
	p = admit(h, &why, f, o);
	if (!p)
		return why != CONGESTION_MARK_LOST && incomplete() ? NEXT : refuse(why);
	if (!arrives_by(p, skb->ifindex, o))
		return refuse(WRONG_INTERFACE);
	/*
	 * A super-packet keeps the mark of a tunnel. BPF_F_ADJ_ROOM_DECAP_L4_UDP of Linux 7.3
	 * would remove it, but a crash of 7.3.4 was seen with that flag.
	 */
	if (remove_outer(skb, family, o))
		return NEXT;
	if (tos != tos_of(&h->ip, f))
		bpf_skb_store_bytes(skb, off, &h->ip, header_len(f), 0);
	count_received(p, &w);
	return join(skb, off, h, &w, f, o);
}

static __always_inline int unwrap_datagram(struct __sk_buff *skb, __u32 off, const int o)
{
	struct frame h;

	if (bpf_skb_load_bytes(skb, off, outer_of(&h, o), overhead(o) + sizeof(h.ip.v4)) < 0)
		return NEXT;
	if ((o == 6 ? h.outer6.nexthdr : h.outer4.protocol) == (o == 6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		report_too_big(skb, off, &h, o);
	if (!from_encap(&h, o))
		return NEXT;
	if (h.ip.v4.version != 6)
		return unwrap(skb, off, &h, 4, o);
	if (bpf_skb_load_bytes(skb, off + overhead(o), &h.ip, sizeof(h.ip.v6)) < 0)
		return NEXT;
	return unwrap(skb, off, &h, 6, o);
}

/* off is the length of the link header in bytes. */
static __always_inline int decap(struct __sk_buff *skb, __u32 off)
{
	struct xdp_meta *m = (void *)(long)skb->data_meta;

	/*
	 * decap_xdp sees neither a VLAN tag that the device removed nor the device's
	 * address. A VLAN that is an uplink has its own decap.
	 */
	if (skb->pkt_type != PACKET_HOST || skb->vlan_tci & VID)
		return NEXT;
	if ((void *)m->source <= (void *)(long)skb->data && m->device == device) {
		if (m->magic == MAGIC(4))
			return pass_unwrapped_of(skb, off, m, 4);
		if (m->magic == MAGIC(6))
			return pass_unwrapped_of(skb, off, m, 6);
	}
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return unwrap_datagram(skb, off, 4);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return unwrap_datagram(skb, off, 6);
	return NEXT;
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

/* Counts the datagram of the filter's data if decap would have taken it. */
static __always_inline void note_passed(struct __sk_buff *skb, const struct frame *h, const int f, const int o)
{
	struct peer *p = find_source(&h->ip, f);
	__u32 zero = 0;
	__u64 *n;

	/* The data begin with the UDP header. */
	if (!whole_packet(h, skb->len + header_len(o), f, o) || (!skb->gso_size && length_of(&h->ip, f) > mtu) ||
	    !p || !is_from(h, p, o) || !arrives_by(p, skb->ifindex, o))
		return;
	n = bpf_map_lookup_elem(&passed, &zero);
	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline void observe_datagram(struct __sk_buff *skb, const int o)
{
	struct frame h;

	if (bpf_skb_load_bytes_relative(skb, 0, outer_of(&h, o), overhead(o) + sizeof(h.ip.v4), BPF_HDR_START_NET) < 0 ||
	    !from_encap(&h, o))
		return;
	if (h.ip.v4.version != 6)
		note_passed(skb, &h, 4, o);
	else if (bpf_skb_load_bytes_relative(skb, overhead(o), &h.ip, sizeof(h.ip.v6), BPF_HDR_START_NET) == 0)
		note_passed(skb, &h, 6, o);
}

/*
 * Counts datagrams that decap would have taken: something led them past it. The
 * filter lets every datagram pass.
 */
SEC("socket")
int observe(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		observe_datagram(skb, 4);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		observe_datagram(skb, 6);
	return skb->len;
}

char __license[] SEC("license") = "GPL";
