//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The fast path of packets between a container's link and the tunnel device. Without
 * a tunnel it leads to the uplink. Programs, attached with tcx or by filters of tc:
 *
 *   from_container  ingress of a container's link  redirects to the tunnel or the uplink
 *   to_container    ingress of the tunnel          redirects into the container
 *                   (or of the uplink, after the tunnel's own program if there is one)
 *   left            egress of a container's link   notes what the long way lets pass
 *   whole           egress of a gateway's device   passes by a device that cuts super-packets
 *
 * A packet takes the fast path if connection tracking has an entry of its flow with
 * the mark of its direction. A rule of our own table, the last of all, sets that
 * mark. The mark ends with the entry. The rules of the bridge come behind that rule:
 * `left` sees the packets that they let pass.
 */
#include "fastpath.h"

/* The part of a packet that decides on its way. */
struct packet {
	struct iphdr ip;
	__be16 sport, dport;
	__be32 rest; /* TCP: the sequence number; UDP: length and checksum */
	__u32 largest; /* of the packets that it is on the wire, in bytes */
	__u32 packets, bytes;
	__u32 data; /* bytes behind the transport header */
	__u64 hash; /* of the flow */
};

static __always_inline void count(enum outcome o, const struct packet *p)
{
	struct count *c = bpf_map_lookup_elem(&counts, &o);

	if (c) {
		c->packets += p->packets;
		c->bytes += p->bytes;
	}
}

static __always_inline struct settings *current(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

/* The host's containers have addresses of its subnet, all others of the network. */
static __always_inline int local(__be32 a) { return (a & subnet_mask) == subnet; }
static __always_inline int remote(__be32 a) { return (a & network_mask) == network && !local(a); }

/* The headers before TCP or UDP. */
struct head {
	__u16 unused; /* aligns ip */
	struct ethhdr eth;
	struct iphdr ip;
};

/* off: bytes of link header. */
static __always_inline int load(struct __sk_buff *skb, __u32 off, struct packet *p)
{
	struct start {
		struct iphdr ip;
		__be16 sport, dport;
		__be32 rest;
	} *s = (void *)(long)skb->data + off;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return 0;
	if ((void *)(s + 1) <= (void *)(long)skb->data_end) {
		p->ip = s->ip;
		p->sport = s->sport;
		p->dport = s->dport;
		p->rest = s->rest;
	} else if (bpf_skb_load_bytes(skb, off, p, sizeof(*s)) < 0) {
		return 0;
	}
	p->packets = 1;
	p->bytes = skb->len - off;
	return 1;
}

/* A TCP header's length and flags. */
static __always_inline int load_tcp(struct __sk_buff *skb, __u32 off, __u8 tcp[2])
{
	__u8 *b = (void *)(long)skb->data + off + sizeof(struct iphdr) + 12;

	if ((void *)(b + 2) > (void *)(long)skb->data_end)
		return bpf_skb_load_bytes(skb, off + sizeof(struct iphdr) + 12, tcp, 2);
	tcp[0] = b[0];
	tcp[1] = b[1];
	return 0;
}

static __always_inline __u32 udp_length(const struct packet *p)
{
	return bpf_ntohl(p->rest) >> 16;
}

/*
 * Returns true for a whole packet of TCP or UDP in the midst of a flow. The kernel
 * gets all others: it alone answers, reassembles or closes.
 */
static __always_inline int plain(struct __sk_buff *skb, __u32 off, struct packet *p)
{
	__u32 len = bpf_ntohs(p->ip.tot_len), hdr = sizeof(p->ip) + 8, segment = skb->gso_size;
	__u8 tcp[2]; /* length of the header, flags */

	if (p->ip.version != 4 || p->ip.ihl != 5 || p->ip.frag_off & bpf_htons(IP_FRAGMENT) ||
	    p->ip.ttl <= 1 || len != skb->len - off || header_sum(&p->ip) != 0xffff)
		return 0;
	if (p->ip.protocol == IPPROTO_TCP) {
		if (load_tcp(skb, off, tcp) < 0 || tcp[0] >> 4 < 5 ||
		    (tcp[1] & (TCP_ACK | TCP_SYN | TCP_FIN | TCP_RST | TCP_URG)) != TCP_ACK)
			return 0;
		hdr = sizeof(p->ip) + (tcp[0] >> 4) * 4;
	} else if (p->ip.protocol != IPPROTO_UDP || udp_length(p) < 8 || udp_length(p) > len - sizeof(p->ip)) {
		return 0; /* connection tracking calls a wrong length invalid */
	}
	if (hdr > len)
		return 0;
	p->data = len - hdr;
	p->largest = len;
	if (segment) {
		p->packets = (p->data + segment - 1) / segment;
		p->bytes += (p->packets - 1) * hdr;
		p->largest = hdr + segment;
	}
	return 1;
}

/* Of a flow. Others cannot choose flows with one hash: they do not know the seed. */
static __always_inline __u64 hash(const struct packet *p)
{
	__u64 h = (((__u64)p->ip.saddr << 32 | p->ip.daddr) ^ seed) * 0x9e3779b97f4a7c15;

	h ^= h >> 32;
	h += (__u64)p->ip.protocol << 32 | (__u32)p->sport << 16 | p->dport;
	h *= 0xbf58476d1ce4e5b9;
	return h ^ h >> 29;
}

/* Computes the hash, too. */
static __always_inline struct slot *slot(struct packet *p)
{
	__u32 i;

	p->hash = hash(p);
	i = p->hash & (SLOTS - 1);
	return bpf_map_lookup_elem(&slots, &i);
}

static __always_inline __u32 tag(const struct packet *p)
{
	return p->hash >> 32 | 1; /* 0 is of no flow */
}

/* Sequence number after a TCP packet. A super-packet and the last segment of it have the same. */
static __always_inline __u32 end(const struct packet *p)
{
	return p->ip.protocol == IPPROTO_TCP ? bpf_ntohl(p->rest) + p->data : 0;
}

/* reply: whether the packet is of the entry's second direction. */
static __always_inline struct nf_conn *find(struct __sk_buff *skb, const struct packet *p, int *reply)
{
	struct bpf_ct_opts opts = {.netns_id = BPF_F_CURRENT_NETNS, .l4proto = p->ip.protocol};
	struct bpf_sock_tuple t = {};
	struct nf_conn *ct;

	t.ipv4.saddr = p->ip.saddr;
	t.ipv4.daddr = p->ip.daddr;
	t.ipv4.sport = p->sport;
	t.ipv4.dport = p->dport;
	ct = bpf_skb_ct_lookup(skb, &t, sizeof(t.ipv4), &opts, sizeof(opts));
	*reply = opts.dir;
	return ct;
}

/* Whether the entry has an extension (nf_ct_ext_exist in net/netfilter/nf_conntrack_extend.h). */
#define HAS(ext, id)                                           \
	(bpf_core_enum_value_exists(enum nf_ct_ext_id, id) && \
	 *((__u8 *)&(ext)->offset + bpf_core_enum_value(enum nf_ct_ext_id, id)))

/*
 * An entry that needs more of the kernel than to let packets pass. One that a helper
 * expected has the mark of its parent (init_conntrack in net/netfilter/nf_conntrack_core.c).
 */
static __always_inline enum outcome special(struct nf_conn *ct)
{
	struct nf_ct_ext *ext = ct->ext;

	if (ct->status & SPECIAL)
		return TRANSLATED;
	if (!ext)
		return FAST_OUT;
	if (HAS(ext, NF_CT_EXT_HELPER) || HAS(ext, NF_CT_EXT_SEQADJ) || HAS(ext, NF_CT_EXT_SYNPROXY))
		return TRANSLATED;
	if (HAS(ext, NF_CT_EXT_ACCT) || HAS(ext, NF_CT_EXT_TIMEOUT))
		return COUNTED;
	return FAST_OUT;
}

/*
 * An entry's timeout is moved on as nf_conntrack_tcp_packet and
 * nf_conntrack_udp_packet do, but once in a second. TCP: what was not
 * acknowledged for two seconds has the shorter time.
 */
static __always_inline void prolong(struct nf_conn *ct, const struct packet *p, const struct settings *t)
{
	__s32 left = ct->timeout - (__u32)bpf_jiffies64();
	__u32 full = t->tcp;

	if (ct->status & IPS_FIXED_TIMEOUT)
		return;
	if (p->ip.protocol == IPPROTO_UDP)
		full = ct->status & IPS_ASSURED ? t->udp_stream : t->udp;
	else if (p->data && left < (__s32)((full - 2) * hz) && t->tcp_unacknowledged < full)
		full = t->tcp_unacknowledged;
	else if (p->data)
		return;
	if (left < (__s32)((full - 1) * hz) || left > (__s32)(full * hz))
		bpf_ct_change_timeout(ct, full * 1000);
}

/*
 * Whether connection tracking checks sequence numbers, of which it does not see all: the
 * window, and that of an RST. The latter must not be below the last acknowledged number
 * (IP_CT_TCP_FLAG_MAXACK_SET). After 2 GB it would seem to be.
 */
static __always_inline int checks_sequence(struct nf_conn *ct, int reply)
{
	__u8 original = ct->proto.tcp.seen[0].flags, answer = ct->proto.tcp.seen[1].flags;

	return !(original & answer & IP_CT_TCP_FLAG_BE_LIBERAL) ||
	       (reply ? answer : original) & IP_CT_TCP_FLAG_MAXACK_SET;
}

static __always_inline enum outcome judge(struct nf_conn *ct, const struct packet *p, __u32 mark, int reply,
					  const struct settings *t)
{
	enum outcome o = special(ct);
	__u64 status = ct->status;

	if (o != FAST_OUT)
		return o;
	if ((status & (IPS_CONFIRMED | IPS_DYING)) != IPS_CONFIRMED)
		return NO_ENTRY;
	if (t->replied && !(status & IPS_SEEN_REPLY))
		return NOT_ESTABLISHED;
	if (p->ip.protocol == IPPROTO_TCP) {
		if (ct->proto.tcp.state != TCP_CONNTRACK_ESTABLISHED)
			return NOT_ESTABLISHED;
		if (checks_sequence(ct, reply))
			return WINDOW;
	} else if ((status & (IPS_SEEN_REPLY | IPS_ASSURED)) == IPS_SEEN_REPLY &&
		   /* The verifier of older kernels takes the union for its first member. */
		   (__s64)(bpf_jiffies64() - BPF_CORE_READ(ct, proto.udp.stream_ts)) > 0) {
		return NOT_ESTABLISHED; /* the kernel gives it the longer timeout now */
	}
	if (!(ct->mark & mark))
		return NOT_JUDGED;
	prolong(ct, p, t);
	return FAST_OUT;
}

/* Sequence numbers are checked until user space has been told. */
static __always_inline void report(const struct packet *p, struct slot *s)
{
	struct flow f = {p->ip.saddr, p->ip.daddr, p->sport, p->dport, p->ip.protocol};
	__u32 jiffy = bpf_jiffies64();

	if (s->reported == jiffy)
		return;
	s->reported = jiffy;
	bpf_ringbuf_output(&reports, &f, sizeof(f), 0);
}

/* FAST_OUT if the packet may take the fast path. */
static __always_inline enum outcome admit(struct __sk_buff *skb, const struct packet *p, __u32 mark, struct slot *f)
{
	struct settings *t = current();
	enum outcome o = NO_ENTRY;
	struct nf_conn *ct;
	int reply;

	if (!t || bpf_ktime_get_coarse_ns() > t->until)
		return STALE;
	ct = find(skb, p, &reply);
	if (ct) {
		o = judge(ct, p, mark, reply, t);
		bpf_ct_release(ct);
	}
	if (o == WINDOW)
		report(p, f);
	else if (o != FAST_OUT && o != NOT_JUDGED)
		f->packets = 0; /* look again after some packets */
	return o;
}

static __always_inline int leave(enum outcome o, const struct packet *p)
{
	count(o, p);
	return NEXT;
}

/* RFC 1624, equation 3, and linux/ip.h's ip_decrease_ttl. */
static __always_inline void decrease_ttl(struct iphdr *ip)
{
	__u32 check = ip->check + bpf_htons(0x0100);

	ip->check = check + (check >= 0xffff);
	ip->ttl--;
}

static __always_inline int same(const __u8 *a, const __u8 *b)
{
	const __u16 *x = (const void *)a, *y = (const void *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}

/* For user space, which has the kernel keep the neighbours of containers in use. */
static __always_inline void note_use(__u32 *used)
{
	struct settings *t = current();

	if (t && *used != t->epoch)
		*used = t->epoch;
}

static __always_inline struct path *path_of(const struct packet *p, struct flow *f)
{
	__u32 i = (p->hash >> 16 ^ p->ip.tos) & (PATHS - 1);

	*f = (struct flow){p->ip.saddr, p->ip.daddr, p->sport, p->dport, p->ip.protocol, p->ip.tos};
	return bpf_map_lookup_elem(&paths, &i);
}

/*
 * A look-up in each jiffy follows every change of routes and neighbours before
 * user space could. `path` is of this processor, which runs one program at a time.
 */
static __always_inline int fresh(const struct path *path, const struct packet *p, const struct flow *f)
{
	const __u64 *x = (const void *)f, *y = (const void *)&path->flow;

	return path->jiffy == (__u32)bpf_jiffies64() && p->largest <= path->largest && x[0] == y[0] && x[1] == y[1];
}

/* 0 if there is a route that carries packets of this size. */
static __always_inline int look_up(struct __sk_buff *skb, struct bpf_fib_lookup *fib, const struct flow *f,
				   __u32 size, __u32 from, __u32 flags)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->family = AF_INET;
	fib->ifindex = from;
	fib->tos = f->tos & ~ECN_MASK;
	fib->tot_len = size;
	fib->l4_protocol = f->protocol;
	fib->sport = f->sport;
	fib->dport = f->dport;
	fib->ipv4_src = f->saddr;
	fib->ipv4_dst = f->daddr;
	return bpf_fib_lookup(skb, fib, sizeof(*fib), flags);
}

/*
 * Whether the route to the source of a packet, which goes from one interface to another,
 * leads back. A router may ask that (fib_validate_source in net/ipv4/fib_frontend.c).
 */
static __always_inline int leads_back(struct __sk_buff *skb, const struct flow *f, __u32 from, __u32 to)
{
	struct flow back = {f->daddr, f->saddr, f->dport, f->sport, f->protocol, f->tos};
	struct bpf_fib_lookup fib;

	return !look_up(skb, &fib, &back, sizeof(struct iphdr), to, BPF_FIB_LOOKUP_SKIP_NEIGH) && fib.ifindex == from;
}

static __always_inline void remember(struct path *path, const struct packet *p, const struct flow *f)
{
	path->flow = *f;
	path->largest = p->largest;
	path->jiffy = bpf_jiffies64();
}

static __always_inline struct container *find_container(struct __sk_buff *skb, const struct packet *p,
							const struct ethhdr *eth)
{
	struct address a = {.port = skb->ifindex, .ip = p->ip.saddr};
	struct container *c = bpf_map_lookup_elem(&containers, &a);

	return c && same(eth->h_source, c->mac) && same(eth->h_dest, c->gateway) ? c : NULL;
}

/* The way to another host of what a container of ours sent; NULL if there is none, and why. */
static __always_inline struct path *leads_out(struct __sk_buff *skb, const struct packet *p, const struct ethhdr *eth,
					      enum outcome *why)
{
	struct bpf_fib_lookup fib;
	struct container *c;
	struct flow f;
	struct path *path = path_of(p, &f);

	*why = ROUTE;
	if (!path)
		return NULL;
	if (fresh(path, p, &f) && path->port == skb->ifindex && same(eth->h_source, path->smac) &&
	    same(eth->h_dest, path->dmac))
		return path;
	c = find_container(skb, p, eth);
	if (!c) {
		*why = UNKNOWN_CONTAINER;
		return NULL;
	}
	/* A gateway may have an address of IPv6 (RFC 5549). */
	if (look_up(skb, &fib, &f, p->largest, c->bridge, BPF_FIB_LOOKUP_SKIP_NEIGH) || fib.family != AF_INET ||
	    !bpf_map_lookup_elem(&outer_links, &fib.ifindex) || !leads_back(skb, &f, c->bridge, fib.ifindex))
		return NULL;
	note_use(&c->used);
	path->port = skb->ifindex;
	path->outer = fib.ifindex;
	path->next = fib.ipv4_dst;
	__builtin_memcpy(path->dmac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(path->smac, eth->h_source, ETH_ALEN);
	remember(path, p, &f);
	return path;
}

/* Returns the MTU of an interface, or -1 if it has gone. */
static __always_inline int mtu_of(struct __sk_buff *skb, __u32 index)
{
	__u32 mtu = 0; /* asks about the packet itself, whose size does not matter */

	/* Linux 5.12; the programs but `whole` need a later one. */
	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_check_mtu))
		return 0;
	return bpf_check_mtu(skb, index, &mtu, 0, 0) < 0 ? -1 : mtu;
}

/* The way to a container; NULL if there is none, and why. */
static __always_inline struct path *leads_in(struct __sk_buff *skb, const struct packet *p, enum outcome *why)
{
	__u32 outer = device ? device : skb->ifindex;
	struct bpf_fib_lookup fib;
	struct station s = {};
	struct port *port;
	struct flow f;
	struct path *path = path_of(p, &f);
	int mtu;

	if (path && fresh(path, p, &f) && path->outer == outer)
		return path;
	*why = ROUTE;
	if (!path || look_up(skb, &fib, &f, p->largest, outer, 0) || !leads_back(skb, &f, outer, fib.ifindex))
		return NULL;
	s.bridge = fib.ifindex;
	__builtin_memcpy(s.mac, fib.dmac, ETH_ALEN);
	port = bpf_map_lookup_elem(&ports, &s);
	/* Without user space, a port that has gone is still known. */
	mtu = port ? mtu_of(skb, port->index) : -1;
	if (mtu >= 0 && p->largest > mtu)
		return NULL;
	*why = UNKNOWN_CONTAINER;
	if (!port || mtu < 0)
		return NULL;
	note_use(&port->used);
	path->port = port->index;
	path->outer = outer;
	__builtin_memcpy(path->dmac, fib.dmac, ETH_ALEN);
	__builtin_memcpy(path->smac, fib.smac, ETH_ALEN);
	remember(path, p, &f);
	return path;
}

/* rt_tos2priority of net/route.h, which a router gives each packet. */
static __always_inline __u32 priority(__u8 tos)
{
	return (0x4620 >> (tos >> 3 & 3) * 4) & 15;
}

/* The kernel writes the neighbour's address, and asks for it as for a packet that it forwards. */
static __always_inline int send_directly(const struct path *way)
{
	struct bpf_redir_neigh next = {.nh_family = AF_INET, .ipv4_nh = way->next};

	return bpf_redirect_neigh(way->outer, &next, sizeof(next), 0);
}

SEC("tcx/ingress")
int from_container(struct __sk_buff *skb)
{
	struct ethhdr *eth = (void *)(long)skb->data;
	struct packet p = {};
	struct path *way;
	struct slot *f;
	enum outcome o;

	if (!load(skb, ETH_HLEN, &p) || !local(p.ip.saddr) || !remote(p.ip.daddr))
		return NEXT;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end || skb->vlan_present || !plain(skb, ETH_HLEN, &p))
		return leave(ODD, &p);
	f = slot(&p);
	if (!f || f->packets < FIRST) {
		if (f)
			f->packets++;
		return leave(FIRST_PACKETS, &p);
	}
	way = leads_out(skb, &p, eth, &o);
	if (!way)
		return leave(o, &p);
	o = admit(skb, &p, sent, f);
	if (o != FAST_OUT)
		return leave(o, &p);

	decrease_ttl(&p.ip);
	/* TTL, protocol and checksum */
	bpf_skb_store_bytes(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, ttl), &p.ip.ttl, 4, 0);
	skb->priority = priority(p.ip.tos);
	count(FAST_OUT, &p);
	if (!device)
		return send_directly(way);
	bpf_tail_call(skb, &encap, 0);
	return bpf_redirect(device, 0);
}

/* A value of struct slot's last. */
static __always_inline __u64 passage(__u32 tag, const struct packet *p)
{
	return (__u64)end(p) << 32 | tag;
}

/* The packet takes the long way: only if it leaves it may those that follow it pass. */
static __always_inline int arrive(enum outcome o, const struct packet *p, struct slot *f)
{
	f->last = passage(0, p);
	return leave(o, p);
}

/* off: bytes of link header. One copy serves two programs. */
static __attribute__((noinline)) int deliver(struct __sk_buff *skb, __u32 off)
{
	struct packet p = {};
	struct head h;
	struct path *way;
	struct slot *f;
	enum outcome o;

	if (!load(skb, off, &p) || !remote(p.ip.saddr) || !local(p.ip.daddr))
		return NEXT;
	if (skb->pkt_type != PACKET_HOST || !plain(skb, off, &p))
		return leave(ODD, &p);
	f = slot(&p);
	if (!f)
		return NEXT;
	if (f->packets < FIRST) {
		f->packets++;
		return arrive(FIRST_PACKETS, &p, f);
	}

	way = leads_in(skb, &p, &o);
	if (!way)
		return arrive(o, &p, f);
	o = admit(skb, &p, received, f);
	if (o == FAST_OUT && (__u32)f->last != tag(&p))
		o = NOT_JUDGED;
	if (o != FAST_OUT)
		return arrive(o, &p, f);
	if (!off && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return arrive(ROUTE, &p, f);

	decrease_ttl(&p.ip);
	__builtin_memcpy(h.eth.h_dest, way->dmac, ETH_ALEN);
	__builtin_memcpy(h.eth.h_source, way->smac, ETH_ALEN);
	h.eth.h_proto = bpf_htons(ETH_P_IP);
	h.ip = p.ip;
	bpf_skb_store_bytes(skb, 0, &h.eth, ETH_HLEN + __builtin_offsetof(struct iphdr, saddr), 0);
	count(FAST_IN, &p);
	return bpf_redirect_peer(way->port, 0);
}

/* LONG_WAY in cb[4] says that to_container_l2 has seen the packet. */
#define LONG_WAY 0x666c6e66 /* "flnf" */

/* At the tunnel, or at an uplink without one. A VLAN's packet is for the VLAN's device. */
SEC("tcx/ingress")
int to_container(struct __sk_buff *skb)
{
	if (!device)
		return skb->vlan_present ? NEXT : deliver(skb, ETH_HLEN);
	return skb->cb[4] == LONG_WAY ? NEXT : deliver(skb, 0);
}

/* At the uplink, called by the tunnel's program with what that has unwrapped. */
SEC("tcx/ingress")
int to_container_l2(struct __sk_buff *skb)
{
	int action = deliver(skb, ETH_HLEN);

	if (action != NEXT)
		return action;
	skb->cb[4] = LONG_WAY;
	return bpf_redirect(device, BPF_F_INGRESS);
}

SEC("tcx/egress")
int left(struct __sk_buff *skb)
{
	struct container *c;
	struct packet p = {};
	struct ethhdr eth;
	struct slot *f;

	if (!load(skb, ETH_HLEN, &p) || !remote(p.ip.saddr) || !local(p.ip.daddr))
		return NEXT;
	f = slot(&p);
	if (!f || f->packets < FIRST || bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) < 0 ||
	    !plain(skb, ETH_HLEN, &p))
		return NEXT;

	/* A bridge floods what it has not learned: it must be for this port. */
	struct address a = {.port = skb->ifindex, .ip = p.ip.daddr};
	c = bpf_map_lookup_elem(&containers, &a);
	if (c && same(eth.h_dest, c->mac))
		__sync_val_compare_and_swap(&f->last, passage(0, &p), passage(tag(&p), &p));
	return NEXT;
}

/* Whether the device takes super-packets with the mark of a tunnel (netif_skb_features in net/core/dev.c). */
static __always_inline int takes_tunnels(struct __sk_buff *skb)
{
	struct sk_buff *k;

	if (!bpf_cast_to_kern_ctx || !bpf_core_type_exists(struct net_device))
		return 0;
	k = bpf_cast_to_kern_ctx(skb);
	return k->dev->features & k->dev->hw_enc_features & NETIF_F_GSO_UDP_TUNNEL;
}

/*
 * A super-packet that was unwrapped whole keeps the mark of a tunnel. A device
 * without tunnel offload cuts it in software. So it goes where the device would send
 * it.
 */
SEC("tcx/egress")
int whole(struct __sk_buff *skb)
{
	struct settings *t = current();
	struct station s = {.bridge = skb->ifindex};
	struct exit *e;
	__u64 *n;

	if (!skb->gso_size || skb->ingress_ifindex != device || takes_tunnels(skb))
		return NEXT;
	if (t && bpf_ktime_get_ns() <= t->until && !bpf_skb_load_bytes(skb, 0, s.mac, ETH_ALEN)) {
		e = bpf_map_lookup_elem(&exits, &s);
		if (e && mtu_of(skb, e->index) >= 0)
			return bpf_redirect(e->index, e->flags);
	}
	n = bpf_map_lookup_elem(&cuts, &s.bridge);
	if (n)
		__sync_fetch_and_add(n, 1);
	return NEXT;
}

char __license[] SEC("license") = "GPL";
