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
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
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
// lease with the new public key.
func (r *rekeyer) rekey(ctx context.Context) (done control.Rekeyed, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var manager *subnet.Manager
	r.state.read(func(s progress) {
		manager = s.manager
		done, err = replaceKey(s)
	})
	if err != nil {
		return control.Rekeyed{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := manager.AwaitPublished(ctx); err != nil {
		return control.Rekeyed{}, fmt.Errorf("the key is replaced, but the store has not taken the public one yet, as soon as it answers it will: %w", err)
	}
	return done, nil
}

// replaceKey replaces the key of s's network, which must stay open meanwhile, and
// publishes the new one. It refuses while the store is away: the other hosts could
// not learn the new key, and would drop the packets.
func replaceKey(s progress) (control.Rekeyed, error) {
	if s.network == nil || !s.ready {
		return control.Rekeyed{}, errNoNetwork
	}
	keyed, ok := s.network.(backend.Rekeyer)
	if !ok {
		return control.Rekeyed{}, fmt.Errorf("backend %s %w", s.config.BackendType, errNoKey)
	}
	before := s.manager.Status()
	if err := before.StoreError; err != nil {
		return control.Rekeyed{}, fmt.Errorf("publish a new key: the store is away: %w", err)
	}
	attrs, err := keyed.Rekey()
	if err != nil {
		return control.Rekeyed{}, fmt.Errorf("replace key: %w", err)
	}
	s.manager.Publish(attrs)
	log.Infof("publish new key subnet=%s", before.Lease.Subnets())
	f := inet.Of(attrs.HostAddr())
	return control.Rekeyed{Subnet: before.Lease.SubnetOf(before.Lease.FirstFamily()), Before: before.Lease.Attrs.Data(f), After: attrs.Data(f)}, nil
}
