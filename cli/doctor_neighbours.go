package cli

import (
	"context"
	"strconv"
)

// neighbours compares the peers with the size of the kernel's table of
// neighbours, which all network namespaces share (net/core/neighbour.c): what
// finds no room in it is dropped. Only the first namespace shows the limit.
// Peers behind a router need no entry, which cannot be told from here.
func (d *doctor) neighbours(context.Context) finding {
	if d.report == nil || d.report.Backend == nil {
		return finding{} // said by another check
	}
	text, err := sysctl("net.ipv4.neigh.default.gc_thresh3")
	if err != nil {
		return finding{}
	}
	limit, err := strconv.Atoi(text)
	if err != nil {
		return warn("sysctl net.ipv4.neigh.default.gc_thresh3", "the kernel's limit %q is not a number", text)
	}
	return roomFor(len(d.report.Backend.Peers), limit)
}

// roomFor leaves half of the table to all that are not peers.
func roomFor(peers, limit int) finding {
	if peers > limit/2 {
		return warn("sysctl -w net.ipv4.neigh.default.gc_thresh2="+strconv.Itoa(4*peers)+" net.ipv4.neigh.default.gc_thresh3="+strconv.Itoa(8*peers),
			"the kernel resolves at most %d addresses to MACs at a time; %d peers on one link may not find room, and what is sent to them is dropped", limit, peers)
	}
	return okay("%d peers, and room for %d", peers, limit)
}
