package main

import (
	"errors"
	"fmt"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
)

// Why a key cannot be replaced.
var (
	errNoNetwork = errors.New("the network is not up yet; look at /readyz")
	errNoKey     = errors.New("has no key to replace; wireguard has")
)

// rekey replaces the network's private key, and has the lease tell the new
// public one. It refuses while the store is away: the other hosts could not
// learn the new key, and their packets would wait for it.
func (d *daemon) rekey() error {
	r := d.snapshot()
	if r.network == nil || !r.ready {
		return errNoNetwork
	}
	keyed, ok := r.network.(backend.Rekeyer)
	if !ok {
		return fmt.Errorf("backend %s %w", r.config.BackendType, errNoKey)
	}
	if err := r.manager.Status().StoreError; err != nil {
		return fmt.Errorf("publish a new key: the store is away: %w", err)
	}
	attrs, err := keyed.Rekey()
	if err != nil {
		return fmt.Errorf("replace key: %w", err)
	}
	r.manager.Publish(attrs)
	log.Infof("publish new key subnet=%v", r.manager.Status().Lease.Subnet)
	return nil
}
