package daemon

import (
	log "github.com/golang/glog"

	"github.com/coreos/flannel/cni/conflist"
	"github.com/coreos/flannel/pkg/subnetfile"
)

// withdrawStale withdraws the container engine's configuration if this host has no
// subnet.env. It is from before a reboot then: the engine would start pods, and each
// would fail. A file that is not removed is logged; the engine's own retries help.
func withdrawStale(k *conflist.Keeper, o *Options) {
	if _, err := subnetfile.Read(o.subnetFile); err == nil { // promise: stale-configuration-is-withdrawn
		return // an earlier run's network connects pods
	}
	if err := k.Withdraw(); err != nil {
		log.Warningf("withdraw the CNI configuration of an earlier run: %v", err)
	}
}
