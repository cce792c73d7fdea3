package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/control"
)

// publishLimit is how long rekey waits for the store to take the new key.
const publishLimit = 10 * time.Second

// Why a key cannot be replaced.
var (
	errNoNetwork = errors.New("the network is not up yet; look at /readyz")
	errNoKey     = errors.New("has no key to replace; wireguard has")
)

// serveControl takes orders from commands on this host until ctx ends. Without,
// all goes on, and rekey says that it cannot.
func (d *daemon) serveControl(ctx context.Context) error {
	path := control.Path(d.options.subnetFile)
	if err := control.New(path, control.Actions{Rekey: d.rekey}).Run(ctx); err != nil {
		log.Warningf("take no orders from flannel rekey path=%s reason=%q", path, err)
	}
	<-ctx.Done()
	return nil
}

// rekey replaces the network's private key, and has the lease tell the new
// public one, which it waits for. It refuses while the store is away: the other
// hosts could not learn the new key, and their packets would wait for it.
func (d *daemon) rekey(ctx context.Context) (control.Rekeyed, error) {
	d.rekeying.Lock()
	defer d.rekeying.Unlock()
	r := d.snapshot()
	if r.network == nil || !r.ready {
		return control.Rekeyed{}, errNoNetwork
	}
	keyed, ok := r.network.(backend.Rekeyer)
	if !ok {
		return control.Rekeyed{}, fmt.Errorf("backend %s %w", r.config.BackendType, errNoKey)
	}
	before := r.manager.Status()
	if err := before.StoreError; err != nil {
		return control.Rekeyed{}, fmt.Errorf("publish a new key: the store is away: %w", err)
	}
	attrs, err := keyed.Rekey()
	if err != nil {
		return control.Rekeyed{}, fmt.Errorf("replace key: %w", err)
	}
	r.manager.Publish(attrs)
	log.Infof("publish new key subnet=%v", before.Lease.Subnet)
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	if err := r.manager.AwaitPublished(ctx); err != nil {
		return control.Rekeyed{}, fmt.Errorf("the key is replaced, but the store has not taken the public one yet, as soon as it answers it will: %w", err)
	}
	return control.Rekeyed{Subnet: before.Lease.Subnet, Before: before.Lease.Attrs.BackendData, After: attrs.BackendData}, nil
}
