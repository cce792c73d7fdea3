package daemon

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// membership is a host's place in the network: it holds a lease.
type membership struct {
	store   store.Store
	config  *subnet.Config
	backend backend.Backend
	manager *subnet.Manager
	lease   subnet.Lease
	// synced: a network has had its first full set of peers.
	synced bool
	// lacking counts how often in turn the lease was acquired without a part that it
	// should have; 0 if it is complete.
	lacking int
	// formerIPs are the public IPs that this host had before with this lease.
	formerIPs []netip.Addr
	// formerNetworks are the other networks of earlier runs that are known.
	formerNetworks []netip.Prefix
}

// renew keeps the lease until ctx ends (nil) or it is lost (subnet.ErrLost).
func (m *membership) renew(ctx context.Context) error { return m.manager.Renew(ctx, m.lease) }

// leave closes the store at the end of a run, which err ended. The lease stays.
func (m *membership) leave(err error) {
	m.close()
	if err == nil || errors.Is(err, context.Canceled) {
		l := m.manager.Status().Lease
		log.Infof("leave the lease in the store subnet=%s expires=%s", l.Subnets(), l.Expiry())
	}
}

func (m *membership) close() {
	if err := m.store.Close(); err != nil {
		log.Warningf("close store: %v", err)
	}
}

// rememberAddr notes the address that the stored lease may still name.
func (m *membership) rememberAddr() {
	if ip := m.lease.Attrs.HostAddr(); !slices.Contains(m.formerIPs, ip) {
		m.formerIPs = append(m.formerIPs, ip)
	}
}

const (
	// lackingLeast is the least time before the first attempt to get a part that the
	// lease lacks. It doubles up to lackingMost: each attempt reads all leases. Up to
	// half of it is added at random.
	lackingLeast = time.Minute
	lackingMost  = 16 * time.Minute
)

// errLacking ends control when it is time to get the part that the lease lacks.
var errLacking = errors.New("the lease lacks a subnet")

// awaitAttempt returns errLacking when it is time for another attempt, and nil when ctx
// ends.
func (m *membership) awaitAttempt(ctx context.Context) error {
	if m.lacking == 0 {
		<-ctx.Done()
		return nil
	}
	pause := min(lackingLeast<<min(m.lacking-1, 10), lackingMost)
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(pause + rand.N(pause/2)):
		return errLacking
	}
}
