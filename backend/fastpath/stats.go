package fastpath

import "fmt"

// outcomeNames name the counters, in the order of enum outcome.
var outcomeNames = [fastpathOutcomeOUTCOMES]string{
	fastpathOutcomeFAST_OUT:          "sent",
	fastpathOutcomeFAST_IN:           "received",
	fastpathOutcomeODD:               "not_plain",
	fastpathOutcomeFIRST_PACKETS:     "first_packets",
	fastpathOutcomeUNKNOWN_CONTAINER: "unknown_container",
	fastpathOutcomeROUTE:             "route_or_size",
	fastpathOutcomeNO_ENTRY:          "no_conntrack_entry",
	fastpathOutcomeTRANSLATED:        "translated",
	fastpathOutcomeCOUNTED:           "counted_by_conntrack",
	fastpathOutcomeNOT_ESTABLISHED:   "not_established",
	fastpathOutcomeWINDOW:            "window_checked",
	fastpathOutcomeNOT_JUDGED:        "not_passed_by_rules",
	fastpathOutcomeSTALE:             "not_maintained",
}

// Count is a number of packets and their bytes, as on the wire.
type Count struct{ Packets, Bytes uint64 }

// Stats counts packets between containers and the tunnel or the uplinks since the programs
// were loaded.
type Stats struct {
	// Sent and Received took the fast path.
	Sent, Received Count
	// LongWay counts the packets that did not, by reason. Each reason is present.
	LongWay map[string]Count
}

func (p *programs) stats() (Stats, error) {
	s := Stats{LongWay: make(map[string]Count)}
	for o, name := range outcomeNames {
		var values []fastpathCount
		if err := p.Counts.Lookup(uint32(o), &values); err != nil {
			return Stats{}, fmt.Errorf("read counters of fast path: %w", err)
		}
		var sum Count
		for _, v := range values {
			sum.Packets += v.Packets
			sum.Bytes += v.Bytes
		}
		switch fastpathOutcome(o) {
		case fastpathOutcomeFAST_OUT:
			s.Sent = sum
		case fastpathOutcomeFAST_IN:
			s.Received = sum
		default:
			s.LongWay[name] = sum
		}
	}
	return s, nil
}
