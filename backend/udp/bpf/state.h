/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the programs know: their configuration, the peers, and what they count.
 * The loader writes it, and reads the counters.
 */

/* enum tcx_action_base, linux/bpf.h of 6.6. NEXT lets other programs look. */
#define NEXT (-1)
#define DROP 2

/* Filled in by the loader, constants to the verifier. */
volatile const __u32 device;	    /* ifindex of the TUN */
volatile const __be32 local;	    /* our address on the underlay */
volatile const __be16 port;	    /* every host's UDP port */
volatile const __be32 subnet, mask; /* our lease */

struct key {
	__be32 mask, subnet;
};

struct peer {
	__be32 addr;  /* of its host on the underlay */
	__u32 kernel; /* its host runs these programs, too */
	__u64 tx_packets, tx_bytes, rx_packets, rx_bytes; /* inner, as on the wire */
};

/* One look-up finds the peer and this CPU's counters. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1); /* set by the loader */
	__type(key, struct key);
	__type(value, struct peer);
} peers SEC(".maps");

/*
 * The masks that peers' subnets have, longest first, ended by 0. All leases of
 * a network are cut to one length, so that one hash look-up does where a trie
 * takes one step per level; leases left from another configuration cost a step
 * per length.
 */
struct masks {
	__be32 mask[33];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct masks);
} lengths SEC(".maps");

/* The peers' hosts; asked only to name the reason of a refusal. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* set by the loader */
	__type(key, __be32);
	__type(value, __u32);
} hosts SEC(".maps");

enum reason {
	UNKNOWN_OUTER_SOURCE,
	INNER_SOURCE_MISMATCH,
	INNER_DESTINATION_MISMATCH,
	CONGESTION_MARK_LOST,
	REASONS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, enum reason);
	__type(value, __u64);
} drops SEC(".maps");

#define FLOWS 4096

/* When a packet of a flow was last left to the TUN's reader, by flow hash. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FLOWS);
	__type(key, __u32);
	__type(value, __u64);
} declined SEC(".maps");

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

/* What a packet has before it that was unwrapped before GRO. */
struct mark {
	__u32 magic, device;
};

#define MAGIC 0x666c6e31 /* "fln1" */

static __always_inline struct peer *refuse(enum reason reason)
{
	__u64 *n = bpf_map_lookup_elem(&drops, &reason);

	if (n)
		++*n;
	return NULL;
}
