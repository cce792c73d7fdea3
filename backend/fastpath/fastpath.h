/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Constants, configuration and maps of the programs. The loader writes them, and
 * reads the counters and the reports.
 */
#include "../../pkg/tchook/program.h"
#include <bpf/bpf_core_read.h>

/* The flags of a TCP header, RFC 9293 section 3.1. */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define TCP_URG 0x20

/* A flow's first packets take the long way: short flows cost one counter. */
#define FIRST 16
#define SLOTS 65536 /* a power of two */

/* Filled in by the loader, constants to the verifier. */
volatile const __u32 device;		    /* ifindex of the tunnel; 0: packets use the uplinks directly */
volatile const __be32 network, network_mask; /* of all hosts */
volatile const __be32 subnet, subnet_mask;   /* of this host */
volatile const __u32 sent, received;	    /* bits of an entry's mark, by direction */
volatile const __u32 hz;		    /* jiffies per second */
volatile const __u32 seed;		    /* of the flows' hashes */

/*
 * Timeouts of connection tracking, in seconds, and the time until which the containers
 * are known to be right. User space moves it on.
 */
struct settings {
	__u64 until; /* of bpf_ktime_get_coarse_ns */
	__u32 tcp, tcp_unacknowledged, udp, udp_stream;
	__u32 replied; /* flows without a reply take the long way */
	__u32 epoch;   /* goes up with each look of user space */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* A container's address at a port of a bridge. */
struct address {
	__u32 port; /* ifindex of the container's link on the host */
	__be32 ip;
};

struct container {
	__u8 mac[ETH_ALEN], gateway[ETH_ALEN]; /* of the container, of the bridge */
	__u32 bridge;			       /* ifindex */
	__u32 used;			       /* the last epoch in which it was used */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct address);
	__type(value, struct container);
} containers SEC(".maps");

/* What a bridge's forwarding table would say. */
struct station {
	__u32 bridge;
	__u8 mac[ETH_ALEN];
	__u8 unused[2];
};

struct port {
	__u32 index, used;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct station);
	__type(value, struct port);
} ports SEC(".maps");

/* The interfaces to other hosts, by ifindex: the tunnel, or the uplinks. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u8);
} outer_links SEC(".maps");

/* Where a device sends the frames for a station that it would cut. */
struct exit {
	__u32 index; /* of a bridge's port, or of the device below */
	__u32 flags; /* of bpf_redirect */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct station);
	__type(value, struct exit);
} exits SEC(".maps");

/* Super-packets that the device of a gateway has cut, by ifindex. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} cuts SEC(".maps");

/* What is known of a flow, by its hash. Two flows with one slot hinder each other, no more. */
struct slot {
	__u32 packets;  /* that took the long way; starts again after a refusal */
	__u32 reported; /* jiffy of the last report */
	/*
	 * The last packet of the long way to a container: its end() in the upper half. In
	 * the lower half the flow's tag when it has left for the container, 0 before.
	 */
	__u64 last;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

/* A flow, and what else its route may depend on. */
struct flow {
	__be32 saddr, daddr;
	__be16 sport, dport;
	__u16 protocol, tos;
};

/* The kernel's route and neighbour for a flow, as one processor has looked them up. */
struct path {
	struct flow flow;
	__u32 jiffy;   /* in which; it is looked up again in the next */
	__u32 largest; /* packet that it is known to carry, in bytes */
	__u32 port;    /* ifindex of the container's link on the host */
	__u32 outer;   /* ifindex of the tunnel or the uplink */
	__be32 next;   /* the neighbour at the uplink */
	__u8 dmac[ETH_ALEN], smac[ETH_ALEN]; /* of the packet at the container's link */
};

#define PATHS 1024 /* a power of two */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PATHS);
	__type(key, __u32);
	__type(value, struct path);
} paths SEC(".maps");

/* The way of a packet, and the reason. Those from ODD on are long ways. */
enum outcome {
	FAST_OUT,
	FAST_IN,
	ODD,		 /* not TCP or UDP, a fragment, options, a TTL of 1, TCP's SYN, FIN, RST */
	FIRST_PACKETS,	 /* of a flow */
	UNKNOWN_CONTAINER,
	ROUTE,		 /* leads elsewhere, or the packet is larger than it carries */
	NO_ENTRY,	 /* in connection tracking */
	TRANSLATED,	 /* by the host, or in the hands of a helper, or another flow's child */
	COUNTED,	 /* by connection tracking, which must see each packet */
	NOT_ESTABLISHED,
	WINDOW,		 /* connection tracking still checks TCP's window */
	NOT_JUDGED,	 /* no packet of this direction has passed the host's rules */
	STALE,		 /* user space has gone */
	OUTCOMES,
};

struct count {
	__u64 packets, bytes; /* as on the wire */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OUTCOMES);
	__type(key, enum outcome);
	__type(value, struct count);
} counts SEC(".maps");

/* The tunnel's program that wraps an Ethernet packet, if it has one. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} encap SEC(".maps");

/* TCP flows for which user space must turn off the check of windows. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536); /* bytes */
} reports SEC(".maps");

/*
 * What this program reads of the kernel's own structures (net/netfilter/
 * nf_conntrack.h, linux/skbuff.h, linux/netdevice.h), found by name when it is loaded.
 */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct ip_ct_tcp_state {
	__u8 flags;
};
struct ip_ct_tcp {
	struct ip_ct_tcp_state seen[2];
	__u8 state;
};
struct nf_ct_udp {
	unsigned long stream_ts;
};
union nf_conntrack_proto {
	struct ip_ct_tcp tcp;
	struct nf_ct_udp udp;
};
struct nf_ct_ext {
	__u8 offset[4];
};
struct nf_conn {
	unsigned long status;
	__u32 timeout, mark;
	struct nf_ct_ext *ext;
	union nf_conntrack_proto proto;
};
struct net_device {
	__u64 features, hw_enc_features;
};
struct sk_buff {
	struct net_device *dev;
};
#pragma clang attribute pop

/* enum nf_ct_ext_id, net/netfilter/nf_conntrack_extend.h; numbers depend on the kernel's configuration. */
enum nf_ct_ext_id {
	NF_CT_EXT_HELPER,
	NF_CT_EXT_ACCT,
	NF_CT_EXT_SEQADJ,
	NF_CT_EXT_TIMEOUT,
	NF_CT_EXT_SYNPROXY,
};

/* enum ip_conntrack_status, linux/netfilter/nf_conntrack_common.h. */
#define IPS_EXPECTED (1 << 0)
#define IPS_SEEN_REPLY (1 << 1)
#define IPS_ASSURED (1 << 2)
#define IPS_CONFIRMED (1 << 3)
#define IPS_SRC_NAT (1 << 4)
#define IPS_DST_NAT (1 << 5)
#define IPS_SEQ_ADJUST (1 << 6)
#define IPS_DYING (1 << 9)
#define IPS_FIXED_TIMEOUT (1 << 10)
#define IPS_TEMPLATE (1 << 11)
#define IPS_NAT_CLASH (1 << 12)
#define IPS_HELPER (1 << 13)
#define IPS_OFFLOAD (1 << 14)
#define IPS_HW_OFFLOAD (1 << 15)
#define SPECIAL                                                                             \
	(IPS_EXPECTED | IPS_SRC_NAT | IPS_DST_NAT | IPS_SEQ_ADJUST | IPS_TEMPLATE | IPS_NAT_CLASH |        \
	 IPS_HELPER | IPS_OFFLOAD | IPS_HW_OFFLOAD)

/* linux/netfilter/nf_conntrack_tcp.h */
#define TCP_CONNTRACK_ESTABLISHED 3
#define IP_CT_TCP_FLAG_BE_LIBERAL 0x08
#define IP_CT_TCP_FLAG_MAXACK_SET 0x20

/* SKB_GSO_UDP_TUNNEL (linux/skbuff.h) as a feature (NETIF_F_GSO_SHIFT in linux/netdev_features.h). */
#define NETIF_F_GSO_UDP_TUNNEL (1ULL << (16 + 10))

/* The first fields of struct bpf_ct_opts, net/netfilter/nf_conntrack_bpf.c: a size that every kernel takes. */
struct bpf_ct_opts {
	__s32 netns_id, error;
	__u8 l4proto, dir, reserved[2];
};

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, __u32 tuple_size,
					 struct bpf_ct_opts *opts, __u32 opts_size) __ksym;
extern int bpf_ct_change_timeout(struct nf_conn *ct, __u32 ms) __ksym;
extern void *bpf_cast_to_kern_ctx(void *skb) __ksym __weak; /* Linux 6.2 */
extern void bpf_ct_release(struct nf_conn *ct) __ksym;
