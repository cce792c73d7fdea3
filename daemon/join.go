package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/nodeid"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// joined is a host's place in the network: whoever has one has a lease.
type joined struct {
	store   store.Store
	config  *subnet.Config
	backend backend.Backend
	manager *subnet.Manager
	lease   subnet.Lease
	// former are the public IPs that this host had before with this lease.
	former []netip.Addr
	// networks are those of earlier runs, as far as they are known.
	networks []netip.Prefix
}

// join gets a lease from the store, and waits for the store as long as it
// takes; but where the last run's lease has not ended, not longer than
// storePatience: it goes on with that one then, and with the peers and the
// configuration of that time. The caller closes the store.
func (d *daemon) join(ctx context.Context, up uplink.Uplink, publicIP netip.Addr) (joined, error) {
	remembered := d.recall()
	left := remembered.left(publicIP, clock.Now())
	if left <= 0 {
		return d.ask(ctx, up, publicIP, remembered, 0)
	}
	j, err := d.ask(ctx, up, publicIP, remembered, storePatience)
	if !errors.Is(err, subnet.ErrStoreTimeout) {
		return j, err
	}
	log.Warningf("the store is away, go on with what the last run knew subnet=%v peers=%d lease_ends_in=%v reason=%q",
		remembered.Lease.Subnet, len(remembered.Peers), left.Round(time.Second), err)
	return d.resume(ctx, up, publicIP, remembered, left)
}

// checkPublish refuses a -network that this host could not work with: once
// published it would hold for all hosts, and none would overwrite it.
func (d *daemon) checkPublish(up uplink.Uplink, publicIP netip.Addr) error {
	if d.options.published == nil {
		return nil
	}
	if _, err := d.newBackend(d.options.published, up, publicIP); err != nil {
		return fmt.Errorf("-network: %w", err)
	}
	return nil
}

// warnOfOther says so where the store has another configuration than -network
// would have published: that of the store holds, for all hosts.
func (d *daemon) warnOfOther(stored *subnet.Config) {
	ours := d.options.published
	if ours == nil {
		return
	}
	// Of the backend only the type is compared.
	if slices.ContainsFunc(ours.Diff(stored), func(d subnet.ConfigDifference) bool { return d.Key != "Backend" }) {
		log.Warningf("ignore -network network=%v backend=%s reason=%q stored_network=%v stored_backend=%s hint=%q",
			ours.Network, ours.BackendType, "the store has another configuration, which holds for all hosts",
			stored.Network, stored.BackendType, "flannel config set changes it")
	}
}

// ask gets the configuration and a lease from the store. With patience, it fails
// with subnet.ErrStoreTimeout where the store says nothing for so long.
func (d *daemon) ask(ctx context.Context, up uplink.Uplink, publicIP netip.Addr, remembered *memory, patience time.Duration) (j joined, err error) {
	opening := ctx
	if patience > 0 {
		limited, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no configuration within %v: %w", patience, subnet.ErrStoreTimeout))
		defer cancel()
		opening = limited
	}
	if err := d.checkPublish(up, publicIP); err != nil {
		return joined{}, err
	}
	j.store, err = store.Open(opening, store.Config{ClientConfig: d.options.store.ClientConfig, API: d.options.store.API, Publish: d.options.publish})
	if err != nil {
		return joined{}, err
	}
	defer func() {
		if err != nil {
			j.close()
		}
	}()
	d.update(func(r *running) { r.store = j.store })
	if j.config, err = subnet.WaitConfig(opening, j.store); err != nil {
		return j, fmt.Errorf("use network configuration %s/config: %w", d.options.store.Prefix, err)
	}
	d.warnOfOther(j.config)
	j.networks = d.previousNetworks(remembered, j.config.Network)
	acquire := func() error {
		if err := d.prepare(&j, up, publicIP); err != nil {
			return err
		}
		var err error
		j.lease, err = j.manager.Acquire(ctx, d.identify(j.backend.Attrs()),
			subnet.Hints{Previous: d.previousSubnet(remembered), Remembered: remembered.subnets(), StoreTimeout: patience})
		return err
	}
	if err = acquire(); errors.Is(err, subnet.ErrCloned) {
		id, failed := nodeid.Replace(d.options.stateDir)
		if failed != nil {
			return j, errors.Join(err, failed)
		}
		log.Warningf("this host's disk is a copy of another's, take a new identity node_id=%v reason=%q", id, err)
		err = acquire() // with another backend, too: its keys may come from the identity
	}
	return j, err
}

// identify adds who this host is to what its lease tells. Without an identity
// the address alone says it, as in other flannels.
func (d *daemon) identify(a subnet.Attrs) subnet.Attrs {
	id, err := nodeid.Load(d.options.stateDir)
	if err != nil {
		log.Warningf("go without a node id: %v; another host with the same public IP would not be noticed", err)
		return a
	}
	a.NodeID = id.String()
	if a.Hostname, err = os.Hostname(); err != nil {
		log.V(1).Infof("go without a host name: %v", err)
	}
	return a
}

// resume joins without the store's answer, with a lease that ends after left.
func (d *daemon) resume(ctx context.Context, up uplink.Uplink, publicIP netip.Addr, remembered *memory, left time.Duration) (j joined, err error) {
	j.store, err = store.Open(ctx, store.Config{ClientConfig: d.options.store.ClientConfig, API: remembered.API})
	if err != nil {
		return joined{}, err
	}
	d.update(func(r *running) { r.store = j.store })
	j.config = &remembered.Config
	if err := d.prepare(&j, up, publicIP); err != nil {
		j.close()
		return joined{}, err
	}
	j.networks = d.previousNetworks(remembered, j.config.Network)
	j.lease = remembered.Lease
	if !j.lease.Reserved {
		j.lease.Expiration = time.Now().Add(left)
	}
	j.lease.Attrs = d.identify(j.backend.Attrs())
	j.manager.Adopt(j.lease, append([]*subnet.Lease{}, remembered.Peers...)) // none is known to be none
	return j, nil
}

// prepare makes what follows from the configuration.
func (d *daemon) prepare(j *joined, up uplink.Uplink, publicIP netip.Addr) (err error) {
	if j.config.IPv6Network != "" {
		log.Warningf("IPv6 is not carried, the network runs without it ipv6_network=%s", j.config.IPv6Network)
	}
	j.manager = j.store.NewManager(j.config, d.options.leaseTTL, d.options.renewal)
	d.update(func(r *running) { r.config, r.manager = j.config, j.manager })
	j.backend, err = d.newBackend(j.config, up, publicIP)
	return err
}

func (j joined) close() {
	if err := j.store.Close(); err != nil {
		log.Warningf("close store: %v", err)
	}
}
