package daemon

import (
	"context"
	"net"
	"net/netip"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/kube"
)

// nodeTimeout is how long a start waits for the annotations of the Node.
const nodeTimeout = 5 * time.Second

// chooseByNode completes the choice of the uplink in a Kubernetes cluster. The
// annotation node-public-ip of the Node takes precedence over -public-ip, and an
// address of this host that is advertised chooses its interface, unless a flag does.
//
// The API server has nodeTimeout to answer: a host that starts without it goes on as
// its flags have it.
func chooseByNode(ctx context.Context, o *Options) {
	if !o.store.Kube.Enabled {
		return
	}
	k := kube.New(o.store.Kube.Config())
	defer k.Close() // it has no more than idle connections
	limited, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	given, err := backoff.Retry(limited, "read the Node", func() (subnet.Attrs, error) { return k.Advertised(limited) })
	if err != nil {
		log.Warningf("choose interface and address without the annotations of the Node reason=%q", err)
	}
	var local []string
	for _, f := range inet.Families {
		if ip := given.Addr(f); ip.IsValid() {
			o.publicIPs[f] = ip
		}
		if ip := o.publicIPs[f]; ip.IsValid() && isLocal(ip) {
			local = append(local, ip.String())
		}
	}
	if o.iface.IsZero() {
		o.iface.Ifaces = local
	}
}

// isLocal reports whether an interface of this host has the address.
func isLocal(ip netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		log.V(1).Infof("list addresses: %v", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == ip {
			return true
		}
	}
	return false
}
