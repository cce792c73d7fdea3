/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What differs between IPv4 and IPv6. A family is the version field's value. It is a
 * constant wherever a function gets it, so that each family has instructions of its
 * own: f is the packet's, o that of the datagram around it.
 */
#define same6(a, b) ((a)[0] == (b)[0] && (a)[1] == (b)[1] && (a)[2] == (b)[2] && (a)[3] == (b)[3])

static __always_inline __u32 header_len(const int f)
{
	return f == 6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
}

static __always_inline __be16 ethertype(const int f)
{
	return f == 6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
}

static __always_inline int overhead(const int o)
{
	return header_len(o) + sizeof(struct udphdr);
}

static __always_inline int outer_offset(const int o)
{
	return o == 6 ? __builtin_offsetof(struct frame, outer6) : __builtin_offsetof(struct frame, outer4);
}

static __always_inline void *outer_of(struct frame *h, const int o)
{
	return (void *)h + outer_offset(o);
}

/* The place for an Ethernet header before the outer one. */
static __always_inline struct ethhdr *link_of(struct frame *h, const int o)
{
	return outer_of(h, o) - ETH_HLEN;
}

/* A packet's length in bytes. */
static __always_inline __u32 length_of(const union header *ip, const int f)
{
	return f == 6 ? bpf_ntohs(ip->v6.payload_len) + sizeof(ip->v6) : bpf_ntohs(ip->v4.tot_len);
}

/* IPv4's TOS, or IPv6's traffic class. */
static __always_inline __u8 tos_of(const union header *ip, const int f)
{
	return f == 6 ? ip->v6.priority << 4 | ip->v6.flow_lbl[0] >> 4 : ip->v4.tos;
}

static __always_inline __u8 outer_tos(const struct frame *h, const int o)
{
	return o == 6 ? h->outer6.priority << 4 | h->outer6.flow_lbl[0] >> 4 : h->outer4.tos;
}

static __always_inline void set_tos(union header *ip, __u8 tos, const int f)
{
	__u32 s;

	if (f == 6) {
		ip->v6.priority = tos >> 4;
		ip->v6.flow_lbl[0] = (ip->v6.flow_lbl[0] & 0xf) | tos << 4;
		return;
	}
	/* RFC 1624, equation 3 */
	s = (__u16)~bpf_ntohs(ip->v4.check) + 0xffff + tos - ip->v4.tos;
	ip->v4.check = bpf_htons(~((s & 0xffff) + (s >> 16)));
	ip->v4.tos = tos;
}

/* IPv4 without options, not a fragment. */
static __always_inline int plain_ipv4(const struct iphdr *ip)
{
	return ip->version == 4 && ip->ihl == 5 && !(ip->frag_off & bpf_htons(IP_FRAGMENT));
}

/* The outer header is plain, of a datagram with len bytes of packet. IPv6 has no checksum. */
static __always_inline int outer_fits(const struct frame *h, __u32 len, const int o)
{
	return o == 6 ? h->outer6.version == 6 && bpf_ntohs(h->outer6.payload_len) == len + sizeof(h->udp)
		      : plain_ipv4(&h->outer4) && bpf_ntohs(h->outer4.tot_len) == len + overhead(4) &&
				header_sum(&h->outer4) == 0xffff;
}

/* The datagram is UDP to our address. */
static __always_inline int for_us(const struct frame *h, const int o)
{
	return o == 6 ? h->outer6.nexthdr == IPPROTO_UDP && same6(h->outer6.daddr.s6_addr32, local6)
		      : h->outer4.protocol == IPPROTO_UDP && h->outer4.daddr == local;
}

/* The inner header is as a packet begins. */
static __always_inline int begins_packet(const union header *ip, const int f)
{
	return f == 6 ? ip->v6.version == 6 : ip->v4.version == 4 && ip->v4.ihl >= 5;
}

/* The packet is for our subnet. */
static __always_inline int for_subnet(const union header *ip, const int f)
{
	const __be32 *a = ip->v6.daddr.s6_addr32;

	return f == 6 ? (a[0] & mask6[0]) == subnet6[0] && (a[1] & mask6[1]) == subnet6[1] &&
				(a[2] & mask6[2]) == subnet6[2] && (a[3] & mask6[3]) == subnet6[3]
		      : (ip->v4.daddr & mask) == subnet;
}

/* Returns true if the datagram's source is the peer's host. */
static __always_inline int is_from(const struct frame *h, const struct peer *p, const int o)
{
	return o == 6 ? same6(h->outer6.saddr.s6_addr32, p->addr6) : h->outer4.saddr == p->addr;
}

/* The length of decap_xdp's metadata, which has a source of the datagram's family. */
static __always_inline int meta_len(const int o)
{
	return __builtin_offsetof(struct xdp_meta, source) + (o == 6 ? sizeof(struct in6_addr) : sizeof(__be32));
}

static __always_inline void note_source(struct xdp_meta *m, const struct frame *h, const int o)
{
	if (o == 6)
		__builtin_memcpy(m->source, &h->outer6.saddr, sizeof(m->source));
	else
		m->source[0] = h->outer4.saddr;
}

static __always_inline void restore_source(struct frame *h, const struct xdp_meta *m, const int o)
{
	if (o == 6)
		__builtin_memcpy(&h->outer6.saddr, m->source, sizeof(m->source));
	else
		h->outer4.saddr = m->source[0];
}

/* The datagram's source as a key of hosts. */
static __always_inline struct host host_of(const struct frame *h, const int o)
{
	const __be32 *a = h->outer6.saddr.s6_addr32;

	return o == 6 ? (struct host){{a[0], a[1], a[2], a[3]}}
		      : (struct host){{0, 0, bpf_htonl(0xffff), h->outer4.saddr}};
}

static __always_inline struct peer *find_peer4(__be32 addr)
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

static __always_inline struct peer *find_peer6(const __be32 *addr)
{
	__u32 zero = 0;
	struct masks6 *m = bpf_map_lookup_elem(&lengths6, &zero);

	for (int i = 0; m && i < LENGTHS6 && m->of[i].length; i++) {
		struct mask6 *l = &m->of[i];
		struct key6 k = {
			.subnet = {addr[0] & l->mask[0], addr[1] & l->mask[1], addr[2] & l->mask[2], addr[3] & l->mask[3]},
			.length = l->length,
		};
		struct peer *p = bpf_map_lookup_elem(&peers6, &k);

		if (p)
			return p;
	}
	return NULL;
}

static __always_inline struct peer *find_destination(const union header *ip, const int f)
{
	return f == 6 ? find_peer6(ip->v6.daddr.s6_addr32) : find_peer4(ip->v4.daddr);
}

static __always_inline struct peer *find_source(const union header *ip, const int f)
{
	return f == 6 ? find_peer6(ip->v6.saddr.s6_addr32) : find_peer4(ip->v4.saddr);
}

/*
 * Writes the outer headers for len bytes of packet. RFC 6040, RFC 2983: ECN and DSCP
 * are copied. The flow label (RFC 6438) and the source port are of the flow.
 */
static __always_inline void write_outer(struct frame *h, const struct peer *p, __u32 len, __u8 tos, __u32 flow, const int o)
{
	h->udp = (struct udphdr){
		.source = bpf_htons(PORTS | (flow & ~PORTS)), .dest = port, .len = bpf_htons(len + sizeof(h->udp)),
	};
	if (o == 6) {
		h->outer6 = (struct ipv6hdr){
			.version = 6, .priority = tos >> 4,
			.flow_lbl = {tos << 4, flow >> 8 & (~PORTS >> 8), flow},
			.payload_len = h->udp.len, .nexthdr = IPPROTO_UDP, .hop_limit = 64,
			.saddr.s6_addr32 = {local6[0], local6[1], local6[2], local6[3]},
			.daddr.s6_addr32 = {p->addr6[0], p->addr6[1], p->addr6[2], p->addr6[3]},
		};
		return;
	}
	h->outer4 = (struct iphdr){
		.version = 4, .ihl = 5, .tos = tos, .tot_len = bpf_htons(len + overhead(4)),
		.frag_off = bpf_htons(IP_DF), .ttl = 64, .protocol = IPPROTO_UDP,
		.saddr = local, .daddr = p->addr,
	};
	h->outer4.check = ~header_sum(&h->outer4);
}

/* Fills in what selects the route of a datagram, all but its size. */
static __always_inline void describe_route(struct bpf_fib_lookup *fib, const struct frame *h, const int o)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->ifindex = device;
	fib->l4_protocol = IPPROTO_UDP;
	fib->sport = h->udp.source;
	fib->dport = port;
	if (o == 6) {
		fib->family = AF_INET6;
		__builtin_memcpy(&fib->flowinfo, &h->outer6, sizeof(fib->flowinfo));
		fib->flowinfo &= bpf_htonl(FLOWINFO & ~(ECN_MASK << 20));
		__builtin_memcpy(fib->ipv6_src, &h->outer6.saddr, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, &h->outer6.daddr, sizeof(fib->ipv6_dst));
		return;
	}
	fib->family = AF_INET;
	fib->tos = h->outer4.tos & ~ECN_MASK;
	fib->ipv4_src = local;
	fib->ipv4_dst = h->outer4.daddr;
}

static __always_inline int leads_to(const struct route *r, const struct frame *h, const int o)
{
	return o == 6 ? same6(r->daddr, h->outer6.daddr.s6_addr32) : r->daddr[0] == h->outer4.daddr;
}

/* The interfaces that datagrams of a family may arrive by. */
static __always_inline const __u32 *uplinks_of(const struct peer *p, const int o)
{
	return o == 6 ? p->uplinks6 : p->uplinks;
}
