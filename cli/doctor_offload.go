package cli

import (
	"fmt"

	"github.com/coreos/flannel/pkg/status"
)

// checkOffloadFaults reports what the daemon's probes of offloads have found.
func checkOffloadFaults(f *facts) finding {
	if f.report == nil || f.report.Backend == nil || len(f.report.Backend.Peers) == 0 {
		return finding{} // checkDaemon and checkPeers report it
	}
	b := f.report.Backend
	var faults []string
	var fix string
	healthy := 0
	for _, p := range b.Peers {
		if p.OffloadsChecked && len(p.OffloadFaults) == 0 {
			healthy++
		}
		for _, fault := range p.OffloadFaults {
			faults = append(faults, describeOffloadFault(p, fault))
			if fix == "" {
				fix = fault.Fix
			}
		}
	}
	switch s := b.OffloadSwitch; {
	case faults != nil:
		cause := ""
		if 2*healthy > len(b.Peers) {
			cause = fmt.Sprintf("; %d of %d peers have no fault, so look at the others and the way there first: the fix slows the way to each peer", healthy, len(b.Peers))
		}
		return failed(fix, "pings pass, but transfers are slow or hang: %s%s", firstNames(faults), cause)
	case s != nil:
		return warn(fmt.Sprintf("replace the driver of %s, or its firmware; flannel turns the switch on when the fault is gone", s.Device),
			"flannel keeps %s of %s off, because of a fault of layer %s", s.Feature, s.Device, s.Layer)
	}
	return okay("the daemon knows no fault of checksums, segmentation or merging on the paths to %d peers", len(b.Peers))
}

// describeOffloadFault names the direction as the only one if the other has no fault.
func describeOffloadFault(p status.Peer, f status.OffloadFault) string {
	direction := "to"
	if f.Direction == status.FromPeer {
		direction = "from"
	}
	only := ""
	if len(p.OffloadFaults) == 1 {
		only = ", in this direction only"
	}
	return fmt.Sprintf("%s: %s %s %v at %v%s", f.Layer, f.Effect, direction, p.Subnet, p.PublicIP, only)
}
