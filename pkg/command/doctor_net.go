package command

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// slowStore is an answer's time from which on etcd is said to be slow.
const slowStore = time.Second

func (d *doctor) etcdAnswers(ctx context.Context) (f finding) {
	if !d.etcd {
		return finding{}
	}
	err := d.store.do(ctx, nil, func(ctx context.Context, st store.Store) error {
		began := time.Now()
		text, err := st.Config(ctx)
		took := time.Since(began).Round(10 * time.Microsecond)
		if err != nil {
			return err
		}
		c, err := subnet.ParseConfig(text)
		switch {
		case err != nil:
			f = fail("flannel config set CONFIG", "answers, but the network configuration cannot work: %v", err)
		case took > slowStore:
			f = warn("etcdctl endpoint status, and look at its disk", "answers after %v, which is slow", took)
		default:
			f = okay("API %s answers after %v; network %v, backend %s", st.API, took, c.Network, c.BackendType)
		}
		return nil
	})
	switch {
	case errors.Is(err, subnet.ErrNoConfig):
		return fail("flannel config set 10.5.0.0/16", "answers, but has no network configuration")
	case err != nil:
		return fail("etcdctl --endpoints="+strings.Join(d.store.flags.Endpoints, ",")+" endpoint health", "%v", err)
	}
	return f
}

// clock asks the kernel whether the clock is kept (adjtimex(2)). Leases run by
// a clock of their own; TLS certificates and logs do not.
func (d *doctor) clock(context.Context) finding {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		return warn("", "cannot be asked: %v", err)
	case state == unix.TIME_ERROR:
		return warn("timedatectl set-ntp true", "is not synchronized: TLS certificates may be refused; leases do not depend on it")
	}
	return okay("is synchronized")
}

func (d *doctor) daemon(ctx context.Context) finding {
	if d.status.addr == "" {
		return finding{}
	}
	r, _, err := d.status.report(ctx)
	switch {
	case err != nil:
		return warn("systemctl start flannel", "%v", err)
	case !r.Ready:
		return fail("flannel wait, and look at its log", "is not ready: %s", strings.Join(r.NotReady, "; "))
	}
	return okay("is ready")
}

func (d *doctor) peers(ctx context.Context) finding {
	if d.status.addr == "" {
		return finding{}
	}
	r, _, err := d.status.report(ctx)
	if err != nil || r.Backend == nil {
		return finding{} // said above
	}
	for _, p := range r.Backend.Peers {
		if p.Problem != "" {
			return fail("flannel peers", "%v at %v: %s", p.Subnet, p.PublicIP, p.Problem)
		}
	}
	return okay("%d, none with a known problem", len(r.Backend.Peers))
}
