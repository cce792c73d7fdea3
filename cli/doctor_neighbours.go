package cli

import "strconv"

// checkNeighbours compares the number of peers with the limit of the kernel's
// neighbour table. All network namespaces share the table (net/core/neighbour.c);
// only the first shows the limit. The kernel drops packets if the table is full.
// Peers behind a router need no entry, but doctor does not know which those are.
func checkNeighbours(f *facts) finding {
	if f.report == nil || f.report.Backend == nil {
		return finding{} // checkDaemon reports it
	}
	text, err := sysctl("net.ipv4.neigh.default.gc_thresh3")
	if err != nil {
		return finding{}
	}
	limit, err := strconv.Atoi(text)
	if err != nil {
		return warn("sysctl net.ipv4.neigh.default.gc_thresh3", "the kernel's limit %q is not a number", text)
	}
	return checkNeighbourLimit(len(f.report.Backend.Peers), limit)
}

// checkNeighbourLimit leaves half of the table to neighbours that are not peers.
func checkNeighbourLimit(peers, limit int) finding {
	if peers > limit/2 {
		return warn("sysctl -w net.ipv4.neigh.default.gc_thresh2="+strconv.Itoa(4*peers)+" net.ipv4.neigh.default.gc_thresh3="+strconv.Itoa(8*peers),
			"the kernel's table has %d neighbours at most; with %d peers on one link it may be full, and the kernel drops packets to the others", limit, peers)
	}
	return okay("%d peers, and the kernel's table has room for %d", peers, limit)
}
