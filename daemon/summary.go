package daemon

import (
	"fmt"
	"strings"
	"time"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/subnet"
)

// summary is one line with every choice that a start has made, and why where
// it was not the operator's. Endpoints have no user in them, see
// etcd.ClientConfig; of the login only the name is told.
func (d *daemon) summary(config *subnet.Config, lease subnet.Lease, network backend.Network) string {
	o, r, stats := d.options, d.snapshot(), network.Stats()
	var b strings.Builder
	say := func(key, format string, value any) { fmt.Fprintf(&b, " %s="+format, key, value) }
	say("subnet", "%v", lease.Subnet)
	say("network", "%v", config.Network)
	say("backend", "%s", config.BackendType)
	say("datapath", "%s", stats.DataPath)
	say("mtu", "%d", network.MTU())
	say("peers", "%d", len(stats.Peers))
	say("subnet_file", "%s", o.subnetFile)
	say("datapath_reason", "%q", stats.Reason)
	say("iface", "%s", r.uplink.Name)
	say("iface_reason", "%q", r.uplink.Reason)
	say("public_ip", "%v", r.publicIP)
	if lease.Reserved {
		say("expires", "%s", "never")
	} else {
		say("expires", "%s", lease.Expiration.UTC().Format(time.RFC3339))
	}
	say("node_id", "%s", lease.Attrs.NodeID)
	say("ip_masq", "%t", o.ipMasq)
	say("etcd", "%s", strings.Join(o.store.Endpoints, ","))
	say("etcd_api", "%s", r.store.API)
	say("etcd_prefix", "%s", o.store.Prefix)
	say("etcd_user", "%q", o.store.Username)
	say("status_addr", "%s", o.statusAddr)
	say("state_dir", "%s", o.stateDir)
	say("probe_interval", "%v", o.probeInterval)
	return "ready" + b.String()
}
