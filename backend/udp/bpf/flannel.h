/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Packet formats, constants, configuration, and the maps: peers, which the loader
 * writes, and counters, which it reads.
 */
#include "../../../pkg/tchook/program.h"
#include <linux/ipv6.h>
#include <linux/udp.h>

#define AF_INET6 10
#define EINVAL 22
#define EALREADY 114
#define IP_DF 0x4000
#define FLOWINFO 0x0fffffff /* IPv6's traffic class and flow label */
#define ECT_1 1
#define ECT_0 2
#define CE 3
#define MULTICAST 0xff	    /* the first byte of IPv6's */
#define VID 0xfff	    /* IEEE 802.1Q: a tag's VLAN; 0: only a priority */
#define PORTS 0xc000	    /* source ports from the dynamic range, RFC 6335 */
#define SECOND 1000000000L /* of bpf_ktime_get_ns */

/* Of linux/icmp.h, which needs a C library, and of linux/icmpv6.h. */
#define ICMP_DEST_UNREACH 3
#define ICMP_FRAG_NEEDED 4
#define ICMPV6_PKT_TOOBIG 2

/* A packet's header. */
union header {
	struct iphdr v4;
	struct ipv6hdr v6;
};

/*
 * The headers of a datagram, one behind the other: those of IPv4 begin later. A
 * router's report of a datagram of IPv4 (RFC 792) has that one's header as ip, and its
 * ports after this.
 */
struct frame {
	__u8 room[16]; /* for an Ethernet header before outer6 */
	union {
		struct ipv6hdr outer6;
		struct {
			__u8 unused[sizeof(struct ipv6hdr) - sizeof(struct iphdr)];
			struct iphdr outer4;
		};
	};
	union {
		struct udphdr udp;
		struct {
			__u8 type, code;
			__sum16 checksum;
			__u32 rest;
		} icmp;
	};
	union header ip;
};

/* The size on the wire: of a packet, or of a super-packet's segments. */
struct wire {
	__u32 packets, bytes, largest;
};

/* Those of an Ethernet header. struct ethhdr is packed, so it is copied by bytes. */
struct addresses {
	__u32 words[2 * ETH_ALEN / 4];
};

/* Metadata before a packet that decap_xdp decapsulated. */
struct xdp_meta {
	__u32 magic, device;
	__be32 source[4]; /* of the datagram; of IPv4 the first */
};

/* By the datagram's family: "fln1" and "fln6". */
#define MAGIC(family) ((family) == 6 ? 0x666c6e36 : 0x666c6e31)

/* Set by the loader; constants for the verifier. Without a family its values are 0. */
volatile const __u32 device;	       /* ifindex of the TUN */
volatile const __be32 local;	       /* our addresses on the underlay */
volatile const __be32 local6[4];
volatile const __be16 port;	       /* every host's UDP port */
volatile const __be32 subnet, mask;    /* our lease */
volatile const __be32 subnet6[4], mask6[4];
volatile const __u32 mtu;	       /* of the TUN, in bytes */
volatile const __u8 frags;	       /* XDP's frames may have several buffers (Linux 5.18) */
volatile const __u8 mixed;	       /* the kernel has BPF_F_ADJ_ROOM_DECAP_L3_* (Linux 6.3) */

struct key {
	__be32 mask, subnet;
};

struct key6 {
	__be32 subnet[4];
	__u32 length;
};

#define UPLINKS 4

struct peer {
	__be32 addr; /* of its host on the underlay */
	__u32 outer; /* family of the datagrams to it; 0: its host does not run these programs */
	/* ifindexes that this host's routes to addr name, ended by 0. */
	__u32 uplinks[UPLINKS];
	__u64 tx_packets, tx_bytes, rx_packets, rx_bytes; /* inner, as on the wire */
	__u64 tx_fast; /* packets, of tx_packets */
	/* The same as addr and uplinks, of IPv6. */
	__be32 addr6[4];
	__u32 uplinks6[UPLINKS];
};

/* Subnets of IPv4. One look-up returns the peer and this CPU's counters. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1); /* set by the loader */
	__type(key, struct key);
	__type(value, struct peer);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1); /* set by the loader */
	__type(key, struct key6);
	__type(value, struct peer);
} peers6 SEC(".maps");

/*
 * The masks of the peers' subnets, longest first, ended by 0. The leases of a
 * network have one length, so one hash look-up replaces a trie's step per level.
 * Leases left from another configuration cost a look-up per length.
 */
struct masks {
	__be32 mask[33];
	__u32 incomplete; /* the table lacks peers, so the socket decides */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct masks);
} lengths SEC(".maps");

/* The same of IPv6, for some lengths. */
#define LENGTHS6 8

struct masks6 {
	struct mask6 {
		__be32 mask[4];
		__u32 length;
	} of[LENGTHS6];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct masks6);
} lengths6 SEC(".maps");

/*
 * The peers' hosts, those of IPv4 as mapped addresses (RFC 4291 section 2.5.5.2); read
 * only for the reason of a refusal.
 */
struct host {
	__be32 addr[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* set by the loader */
	__type(key, struct host);
	__type(value, __u32);
} hosts SEC(".maps");

enum reason {
	UNKNOWN_OUTER_SOURCE,
	INNER_SOURCE_MISMATCH,
	INNER_DESTINATION_MISMATCH,
	CONGESTION_MARK_LOST,
	WRONG_INTERFACE,
	REASONS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, enum reason);
	__type(value, __u64);
} drops SEC(".maps");

/* How a packet leaves: encapsulated at once, by the TUN's reader, or by the segmenter. */
enum way {
	DIRECT,
	READER,
	SEGMENTER,
};

/*
 * Time and way of a flow's last packet that was not sent at once, by flow hash. A
 * flow has an entry for its own packets only: the packets of others cannot push it
 * off the kernel path. They can evict its entry, and then its next packets may
 * overtake those that the reader or the segmenter has.
 */
#define DECLINED_FLOWS 16384

struct declined {
	__u64 time; /* of bpf_ktime_get_ns */
	__u32 way, unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DECLINED_FLOWS);
	__type(key, __u32);
	__type(value, struct declined);
} declined SEC(".maps");

/* Datagrams of peers that reached the socket although decap handles their kind. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} passed SEC(".maps");

/*
 * The kernel's route and neighbour for the datagrams of a source port, as one
 * processor has looked them up.
 */
struct route {
	__be32 daddr[4]; /* of IPv4 the first */
	__be16 sport;
	__u16 kind;    /* TOS and family */
	__u32 jiffy;   /* in which; it is looked up again in the next */
	__u32 largest; /* datagram that it is known to carry, in bytes */
	__u32 uplink;  /* ifindex */
	__u8 dmac[ETH_ALEN], smac[ETH_ALEN];
};

#define ROUTES 1024 /* a power of two */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ROUTES);
	__type(key, __u32);
	__type(value, struct route);
} routes SEC(".maps");

/*
 * The veth pair that segments super-packets: they enter at `in`, which has no
 * offloads, and leave at `out` as single packets. 0: there is none. The other way
 * round, GRO of `in` joins the segments of TCP that enter at `out`.
 */
struct segmenter {
	__u32 in, out; /* ifindexes */
	/* Uplinks whose segments it joins, ended by 0: those where decap_xdp is not. */
	__u32 joined[UPLINKS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct segmenter);
} segmenter SEC(".maps");

/*
 * Large segments of TCP that came one by one lately, by the datagram's source port. Each
 * flow has one port. Flows that share an entry take one way.
 */
#define TRAINS 1024 /* a power of two */
#define TRAIN 8	    /* segments after which the next ones are joined */
#define LONGEST 64

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TRAINS);
	__type(key, __u32);
	__type(value, __u32);
} trains SEC(".maps");

/* The program of the fast path (backend/fastpath) for packets with an Ethernet header, if there is one. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} fast_path SEC(".maps");
