package cli

import "strings"

// checkFastPath reports what keeps containers' packets off the fast path. It costs
// speed only.
func checkFastPath(f *facts) finding {
	if f.report == nil || f.report.Backend == nil || f.report.Backend.FastPath == nil {
		return finding{} // there is no such backend
	}
	switch p := f.report.Backend.FastPath; {
	case len(p.Cut) > 0 && len(p.Off) == 0 && p.Containers == 0:
		return warn("flannel status", "serves no container, and the long way is slow: %s", strings.Join(p.Cut, ", "))
	case len(p.Off) > 0 && p.Containers == 0:
		return warn("flannel status", "is off, so containers' packets take the long way: %s", strings.Join(p.Off, ", "))
	case len(p.Off) > 0:
		return warn("flannel status", "serves %d containers; other packets take the long way: %s", p.Containers, strings.Join(p.Off, ", "))
	case p.Containers == 0:
		return okay("serves no container: none at a bridge with an address of the subnet has sent a packet")
	default:
		return okay("serves %d containers: %d packets sent, %d received", p.Containers, p.TxPackets, p.RxPackets)
	}
}
