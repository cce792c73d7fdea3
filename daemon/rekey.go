package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/control"
	"github.com/coreos/flannel/subnet"
)

// publishTimeout is how long rekey waits for the store to take the new key.
const publishTimeout = 10 * time.Second

// Why a key cannot be replaced.
var (
	errNoNetwork = errors.New("the network is not up yet; look at /readyz")
	errNoKey     = errors.New("has no key to replace; wireguard has")
)

// rekeyTarget is the network whose key is replaced.
type rekeyTarget struct {
	network     backend.Network // nil: none is up yet
	backendType string
	manager     *subnet.Manager
}

// rekeyer serves "flannel rekey" on the control socket.
type rekeyer struct {
	path   string
	target func() rekeyTarget
	mu     sync.Mutex // held during a replacement: one at a time
}

func newRekeyer(o *Options, target func() rekeyTarget) *rekeyer {
	return &rekeyer{path: control.Path(o.subnetFile), target: target}
}

// Run serves the socket until ctx ends. A socket that cannot be served is logged;
// the daemon runs without it, and the command reports that it cannot connect.
func (r *rekeyer) Run(ctx context.Context) error {
	if err := control.New(r.path, control.Actions{Rekey: r.rekey}).Run(ctx); err != nil {
		log.Warningf("flannel rekey is not served path=%s reason=%q", r.path, err)
	}
	<-ctx.Done()
	return nil
}

// rekey replaces the network's private key, and waits until the store has the
// lease with the new public key. It refuses while the store is away: the other
// hosts could not learn the new key, and would drop the packets.
func (r *rekeyer) rekey(ctx context.Context) (control.Rekeyed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.target()
	if t.network == nil {
		return control.Rekeyed{}, errNoNetwork
	}
	keyed, ok := t.network.(backend.Rekeyer)
	if !ok {
		return control.Rekeyed{}, fmt.Errorf("backend %s %w", t.backendType, errNoKey)
	}
	before := t.manager.Status()
	if err := before.StoreError; err != nil {
		return control.Rekeyed{}, fmt.Errorf("publish a new key: the store is away: %w", err)
	}
	attrs, err := keyed.Rekey()
	if err != nil {
		return control.Rekeyed{}, fmt.Errorf("replace key: %w", err)
	}
	t.manager.Publish(attrs)
	log.Infof("publish new key subnet=%v", before.Lease.Subnet)
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := t.manager.AwaitPublished(ctx); err != nil {
		return control.Rekeyed{}, fmt.Errorf("the key is replaced, but the store has not taken the public one yet, as soon as it answers it will: %w", err)
	}
	return control.Rekeyed{Subnet: before.Lease.Subnet, Before: before.Lease.Attrs.BackendData, After: attrs.BackendData}, nil
}
