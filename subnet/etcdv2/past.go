package etcdv2

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/coreos/go-etcd/etcd"

	"github.com/coreos/flannel/subnet"
)

const (
	// pastChanges is how far Past looks back, of the 1000 changes that a server
	// remembers: each change of a lease costs a round trip.
	pastChanges = 250
	// pastWait ends a wait for a change that has not come yet: those that have
	// been are told at once.
	pastWait = 500 * time.Millisecond
)

// Past implements subnet.Registry: by waits for changes that have been.
func (r *Registry) Past(ctx context.Context, rev subnet.Rev, _ []subnet.Lease) (found []netip.Prefix, err error) {
	for at := max(rev-pastChanges, 0); at < rev; {
		resp, err := r.waitPast(ctx, at)
		switch {
		case errors.Is(err, errIdle):
			return found, nil
		case code(err) == codeIndexCleared:
			at += (rev - at + 1) / 2 // those in between are gone
			continue
		case err != nil:
			return found, err
		}
		at = max(at+1, subnet.Rev(resp.Node.ModifiedIndex))
		// What is no host's subnet is a bad key, or the directory.
		if l, err := subnet.ParseKey(strings.TrimPrefix(resp.Node.Key, r.cfg.LeaseDir())); err == nil {
			found = append(found, l.Subnet)
		}
	}
	return found, nil
}

// waitPast returns the first change of a lease after rev, errIdle if there is none.
func (r *Registry) waitPast(ctx context.Context, rev subnet.Rev) (*etcd.Response, error) {
	limited, cancel := context.WithTimeoutCause(ctx, pastWait, errIdle)
	defer cancel()
	resp, err := r.call(limited, "look back at "+r.cfg.LeaseDir(), func(c *etcd.Client) (*etcd.Response, error) {
		return c.Watch(r.cfg.LeaseDir(), uint64(rev)+1, true, nil, nil)
	})
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(limited), errIdle) {
		err = errIdle
	}
	return resp, err
}
