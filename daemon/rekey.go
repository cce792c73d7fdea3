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
)

// Why a key cannot be replaced.
var (
	errNoNetwork = errors.New("the network is not up yet; look at /readyz")
	errNoKey     = errors.New("has no key to replace; wireguard has")
)

// rekeyer serves "flannel rekey" on the control socket.
type rekeyer struct {
	path  string
	state *state
	mu    sync.Mutex // held during a replacement: one at a time
}

func newRekeyer(o *Options, s *state) *rekeyer {
	return &rekeyer{path: control.Path(o.subnetFile), state: s}
}

// Run serves the socket until ctx ends. A socket that cannot be served is logged;
// the daemon runs without it, and the command reports that it cannot connect.
func (r *rekeyer) Run(ctx context.Context) error {
	if err := control.Serve(ctx, r.path, r.rekey); err != nil {
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
	now := r.state.get()
	if now.network == nil || !now.ready {
		return control.Rekeyed{}, errNoNetwork
	}
	keyed, ok := now.network.(backend.Rekeyer)
	if !ok {
		return control.Rekeyed{}, fmt.Errorf("backend %s %w", now.config.BackendType, errNoKey)
	}
	before := now.manager.Status()
	if err := before.StoreError; err != nil {
		return control.Rekeyed{}, fmt.Errorf("publish a new key: the store is away: %w", err)
	}
	attrs, err := keyed.Rekey()
	if err != nil {
		return control.Rekeyed{}, fmt.Errorf("replace key: %w", err)
	}
	now.manager.Publish(attrs)
	log.Infof("publish new key subnet=%v", before.Lease.Subnet)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := now.manager.AwaitPublished(ctx); err != nil {
		return control.Rekeyed{}, fmt.Errorf("the key is replaced, but the store has not taken the public one yet, as soon as it answers it will: %w", err)
	}
	return control.Rekeyed{Subnet: before.Lease.Subnet, Before: before.Lease.Attrs.BackendData, After: attrs.BackendData}, nil
}
