package daemon

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

const (
	// ipv4Patience is how long a start waits for an IPv4 uplink alone. After that,
	// one of either family is enough to read the configuration.
	ipv4Patience = 5 * time.Second
	// secondPatience is how long a start waits for the uplink of a second family: a
	// new IPv6 address is usable after a second (RFC 4862, section 5.4).
	secondPatience = 3 * time.Second
)

// underlay finds the interfaces to the other hosts, one for each family of outer
// headers.
type underlay struct {
	options *Options
	state   *state

	// The functions that reach the kernel.
	find    func(uplink.Choice) (uplink.Uplink, error)
	wait    func(context.Context, uplink.Choice) (uplink.Uplink, error)
	succeed func(uplink.Choice, uplink.Uplink) (uplink.Uplink, error)
}

func newUnderlay(o *Options, s *state) *underlay {
	return &underlay{options: o, state: s, find: uplink.Find, wait: uplink.Wait, succeed: uplink.Successor}
}

// set sets the uplink of a family. The public IP is the uplink's address, unless the
// operator chose one.
func (u *underlay) set(up uplink.Uplink) {
	f := inet.Of(up.Addr)
	publicIP := u.options.publicIPs[f]
	if !publicIP.IsValid() {
		publicIP = up.Addr
	}
	log.Infof("chose interface iface=%s addr=%v mtu=%d public_ip=%v reason=%q", up.Name, up.Addr, up.MTU, publicIP, up.Reason)
	u.state.update(func(s *progress) { s.sides[f] = side{uplink: up, publicIP: publicIP} })
}

// refresh sets the uplinks beside changed, which have just been set, if they are others by
// now: the addresses of both families often change together, and a network for one that
// is gone would fail.
func (u *underlay) refresh(changed []uplink.Uplink) {
	for _, f := range inet.Families {
		known := u.state.get().sides[f].uplink
		if known.Index == 0 || slices.ContainsFunc(changed, func(up uplink.Uplink) bool { return inet.Of(up.Addr) == f }) {
			continue
		}
		if now, err := u.succeed(u.options.iface.Of(f), known); err == nil && now != known {
			u.set(now)
		}
	}
}

// awaitFirst waits for the uplink of one family, preferably IPv4; for that alone if the
// network is known to carry nothing else.
func (u *underlay) awaitFirst(ctx context.Context, ipv4Only bool) error {
	patience := ipv4Patience
	if ipv4Only {
		patience = time.Duration(math.MaxInt64)
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	up, err := u.wait(limited, u.options.iface)
	cancel()
	if err == nil {
		u.set(up)
		return nil
	}
	if ipv4Only {
		return err
	}
	if up, e := u.find(u.options.iface.Of(inet.IPv6)); e == nil && ctx.Err() == nil {
		u.set(up)
		return nil
	}
	if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err // waiting cannot help
	}
	return u.awaitEither(ctx)
}

// awaitEither waits for an uplink of either family. It fails if waiting can help
// neither.
func (u *underlay) awaitEither(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		up  uplink.Uplink
		err error
	}
	results := make(chan result, len(inet.Families))
	for _, f := range inet.Families {
		go func() {
			up, err := u.wait(ctx, u.options.iface.Of(f))
			results <- result{up, err}
		}()
	}
	var found bool
	var errs []error
	for range inet.Families {
		r := <-results
		switch {
		case r.err != nil:
			errs = append(errs, r.err)
		case !found:
			found = true
			u.set(r.up)
			cancel()
		}
	}
	cancel()
	if !found {
		return errors.Join(errs...)
	}
	return nil
}

// settle finds the uplinks that config needs, and drops others. It decides which
// families this host carries. A family without an uplink, or one that the store's
// API cannot hold, is left out, with the reason in the state, if another is there:
// settle waits for an uplink as long as patience, and without limit for the only
// one. It returns an error if no family remains.
func (u *underlay) settle(ctx context.Context, config *subnet.Config, api string, patience time.Duration) error {
	wanted := all.Outside(config.BackendType, config.Backend, config.Families())
	u.state.update(func(s *progress) {
		for _, f := range inet.Families {
			if !slices.Contains(wanted, f) {
				s.sides[f] = side{}
			}
		}
	})
	missing := make(map[inet.Family]error)
	for _, f := range wanted {
		if u.state.get().sides[f].uplink.Index == 0 {
			if err := u.seek(ctx, f, patience); err != nil {
				missing[f] = err
			}
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	have := u.state.get().outside()
	var without [len(inet.Families)]string
	var errs []error
	for _, f := range config.Families() {
		err := all.Carries(config.BackendType, f, have)
		if err != nil && missing[f] != nil {
			err = fmt.Errorf("%w: %w", err, missing[f])
		}
		if api == store.API2 && f == inet.IPv6 {
			err = errors.New("etcd's v2 API holds IPv4 leases only; use the v3 API (-etcd-api=3)")
		}
		if err != nil {
			errs = append(errs, err)
			without[f] = err.Error()
		}
	}
	if len(errs) == len(config.Families()) {
		return fmt.Errorf("use network configuration: %w", errors.Join(errs...))
	}
	u.state.update(func(s *progress) { s.without = without })
	for _, f := range u.state.get().left() {
		log.Warningf("go on without %v reason=%q", f, without[f])
	}
	return nil
}

// withoutIPv6 leaves IPv6 out because of err, and returns the error of again. It returns
// err if that is nil, or if this host carries one family only.
func (u *underlay) withoutIPv6(config *subnet.Config, err error, again func() error) error {
	if err == nil || !u.leaveIPv6Out(config, err) {
		return err
	}
	if err = again(); err != nil { // promise: fault-of-ipv4-costs-no-ipv6
		u.state.update(func(s *progress) { s.without[inet.IPv6] = "" }) // IPv6 is not at fault
	}
	return err
}

// leaveIPv6Out leaves IPv6 out because of err; false if this host would carry nothing
// then.
func (u *underlay) leaveIPv6Out(config *subnet.Config, err error) bool {
	if len(u.state.get().inside(config)) < len(inet.Families) {
		return false
	}
	log.Warningf("go on without %v reason=%q", inet.IPv6, err)
	u.state.update(func(s *progress) { s.without[inet.IPv6] = err.Error() })
	return true
}

// seek finds the uplink of a family. It waits as long as patience if this host has
// an uplink already.
func (u *underlay) seek(ctx context.Context, f inet.Family, patience time.Duration) error {
	choice := u.options.iface.Of(f)
	up, err := u.find(choice)
	if err != nil && len(u.state.get().outside()) == 0 {
		up, err = u.wait(ctx, choice)
	} else if err != nil && patience > 0 {
		u.state.update(func(s *progress) { s.sides[f].awaited = err.Error() })
		limited, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if late, e := u.wait(limited, choice); e == nil {
			up, err = late, nil
		}
		u.state.update(func(s *progress) { s.sides[f].awaited = "" })
	}
	if err == nil {
		u.set(up)
	}
	return err
}
