package daemon

import (
	"errors"
	"io/fs"
	"net/netip"
	"slices"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/subnetfile"
)

// lastRun is what earlier runs left in files.
type lastRun struct {
	env        subnetfile.Env // zero without subnet.env
	checkpoint *checkpoint    // nil without one of use
}

// readLastRun reads subnet.env and the checkpoint. A damaged file is logged and
// ignored.
func readLastRun(o *Options, f *checkpointFile) lastRun {
	env, err := subnetfile.Read(o.subnetFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warningf("ignore previous subnet: %v", err)
	}
	return lastRun{env, f.load()}
}

// subnet returns the subnet of the last run; zero if it is not known. A reboot
// often empties the folder of subnet.env; the checkpoint remains.
func (r lastRun) subnet() netip.Prefix {
	if r.env.Subnet.IsValid() || r.checkpoint == nil {
		return r.env.Subnet
	}
	return r.checkpoint.Lease.Subnet // promise: checkpoint-names-subnet
}

// networks returns the known networks of earlier runs other than now.
func (r lastRun) networks(now netip.Prefix) []netip.Prefix {
	former := []netip.Prefix{r.env.Network}
	if r.checkpoint != nil {
		former = append(former, r.checkpoint.Config.Network)
	}
	former = slices.DeleteFunc(former, func(p netip.Prefix) bool { return !p.IsValid() || p == now })
	return slices.Compact(former)
}
