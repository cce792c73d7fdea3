package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// Holder is the subnet.Holder of our Node, for the families that a configuration
// enables.
type Holder struct {
	*Store
	config *subnet.Config
}

// Holder returns the Holder for the network configuration c.
func (s *Store) Holder(c *subnet.Config) *Holder { return &Holder{s, c} }

// key returns the lease that n's podCIDRs of the enabled families name, without
// attributes.
func (h *Holder) key(n *node) (subnet.Lease, error) {
	l, err := n.key()
	if err != nil {
		return subnet.Lease{}, err
	}
	for _, f := range inet.Families {
		if !h.config.RangeOf(f).Enabled() {
			l = l.Without(f)
		}
	}
	if !l.IsValid() {
		return subnet.Lease{}, fmt.Errorf("node %s has the podCIDRs %v, and the configuration enables another family: %w", n.Metadata.Name, n.Spec.PodCIDRs, subnet.ErrUnassigned)
	}
	return l, nil
}

// readKey reads our Node, and the lease that key returns of it.
func (h *Holder) readKey(ctx context.Context) (*node, subnet.Lease, error) {
	n, err := h.readOwn(ctx)
	if err != nil {
		return nil, subnet.Lease{}, err
	}
	l, err := h.key(n)
	return n, l, err
}

// Acquire implements subnet.Holder: it waits for our Node and its podCIDR, and
// writes the annotations. The API server is asked again after each failure, so a
// Node or a podCIDR that comes late only delays the return. Of the hints, StoreTimeout
// alone applies.
func (h *Holder) Acquire(ctx context.Context, a subnet.Attrs, hints subnet.Hints, report func(error)) (subnet.Lease, error) {
	answered := time.Now()
	l, err := backoff.Retry(ctx, "acquire subnet", func() (subnet.Lease, error) {
		l, err := h.publish(ctx, a)
		report(err)
		switch {
		case err == nil || isAnswer(err):
			answered = time.Now()
		case hints.StoreTimeout > 0 && time.Since(answered) >= hints.StoreTimeout:
			err = backoff.Permanent(fmt.Errorf("%w: %w", subnet.ErrStoreTimeout, err))
		}
		return l, err
	})
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("acquire subnet: %w", err)
	}
	return l, nil
}

// isAnswer reports whether err came from an API server that can be reached.
func isAnswer(err error) bool {
	_, refused := errors.AsType[*apiError](err)
	return refused || subnet.IsAnswer(err)
}

// publish writes the attributes a to our Node if they are not there, and returns
// the lease.
func (h *Holder) publish(ctx context.Context, a subnet.Attrs) (subnet.Lease, error) {
	n, l, err := h.readKey(ctx)
	if err != nil {
		return subnet.Lease{}, err
	}
	return h.publishAt(ctx, n, l, a)
}

// unpublished returns l with the attributes a as n is to have them, and the
// annotations that n lacks for that.
func (h *Holder) unpublished(n *node, l subnet.Lease, a subnet.Attrs) (subnet.Lease, map[string]*string, error) {
	l.Attrs = h.advertised(n, a)
	set, err := h.Store.config.Annotations.encode(l)
	return l, h.Store.config.Annotations.changes(n, set), err
}

// publishAt writes the attributes a to n, which has the subnets of l.
func (h *Holder) publishAt(ctx context.Context, n *node, l subnet.Lease, a subnet.Attrs) (subnet.Lease, error) {
	l, changed, err := h.unpublished(n, l, a)
	if err != nil {
		return subnet.Lease{}, err
	}
	if len(changed) == 0 {
		return l, nil
	}
	var patch struct {
		Metadata struct {
			UID         string             `json:"uid"`
			Annotations map[string]*string `json:"annotations"`
		} `json:"metadata"`
	}
	patch.Metadata.UID, patch.Metadata.Annotations = n.Metadata.UID, changed
	if err := h.patchOwn(ctx, mergePatch, patch); err != nil {
		return subnet.Lease{}, err
	}
	log.Infof("wrote annotations node=%s subnet=%s public_ip=%v count=%d", n.Metadata.Name, l.Subnets(), l.Attrs.HostAddr(), len(changed))
	return l, nil
}

// advertised returns a as the other hosts are to see it: with the name of the Node,
// and the address that the administrator wrote over ours, as of a NAT before us. a
// may be the result of an earlier call.
func (s *Store) advertised(n *node, a subnet.Attrs) subnet.Attrs {
	a.Hostname = n.Metadata.Name
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range inet.Families {
		to, err := s.config.Annotations.address(n, f, suffixOverwrite)
		if err != nil {
			s.bad.Skip(n.Metadata.Name, err)
		}
		o := &s.overwritten[f]
		if ip := a.Addr(f); ip.IsValid() && ip == o.to {
			a.SetFamily(f, o.from, a.Data(f))
		}
		if ip := a.Addr(f); ip.IsValid() && to.IsValid() {
			o.from, o.to = ip, to
			a.SetFamily(f, to, a.Data(f))
		}
	}
	return a
}

// Renew implements subnet.Holder: it writes the attributes again if they are not
// there. A Node that was created anew with another podCIDR has another lease.
func (h *Holder) Renew(ctx context.Context, l subnet.Lease, a subnet.Attrs, _ []netip.Addr) (subnet.Lease, error) {
	n, now, err := h.readKey(ctx)
	if err != nil {
		return subnet.Lease{}, err
	}
	if now.Key() != l.Key() {
		return subnet.Lease{}, fmt.Errorf("node %s was created anew with podCIDRs %v, it had %s: %w", n.Metadata.Name, n.Spec.PodCIDRs, l.Key(), subnet.ErrLost)
	}
	return h.publishAt(ctx, n, now, a)
}

// Check implements subnet.Holder. The watch has our Node, so it costs no request.
func (h *Holder) Check(ctx context.Context, l subnet.Lease) error {
	n, err := h.lastOwn(ctx)
	if err != nil {
		return err
	}
	now, err := h.key(n)
	if err != nil {
		return err
	}
	now, changed, err := h.unpublished(n, now, l.Attrs)
	if err != nil {
		return err
	}
	if now.Key() != l.Key() || len(changed) > 0 {
		return fmt.Errorf("check node %s: its podCIDRs %v and annotations are not those of %v: %w", n.Metadata.Name, n.Spec.PodCIDRs, l, subnet.ErrConflict)
	}
	return nil
}
