package cli

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

const (
	// slowStore is an answer's time from which on etcd is said to be slow: on a
	// local network and a disk of its own it takes a few milliseconds. It is the
	// median of storeReads.
	slowStore  = 250 * time.Millisecond
	storeReads = 5
	// wrongClock is a difference to etcd's clock that is told. It is known to a
	// second only.
	wrongClock = 5 * time.Second
)

// askEtcd judges the store, and keeps its configuration for other checks.
func (d *doctor) askEtcd(ctx context.Context) (f finding) {
	if !d.etcd {
		return finding{}
	}
	err := d.store.do(ctx, nil, func(ctx context.Context, st store.Store) error {
		var text []byte
		var took []time.Duration
		for range storeReads {
			began := time.Now()
			read, err := st.Config(ctx)
			if err != nil {
				return err
			}
			text, took = read, append(took, time.Since(began))
		}
		slices.Sort(took)
		median := took[storeReads/2].Round(10 * time.Microsecond)
		c, err := subnet.ParseConfig(text)
		if err == nil {
			d.config = c
		}
		switch {
		case err != nil:
			f = fail("flannel config set CONFIG", "answers, but the network configuration cannot work: %v", err)
		case median > slowStore:
			f = warn("etcdctl endpoint status, and look at its disk", "answers after %v, which is slow: leases are renewed and peers learnt of late", median)
		default:
			f = okay("API %s answers after %v; network %v, backend %s", st.API, median, c.Network, c.BackendType)
		}
		return nil
	})
	switch {
	case errors.Is(err, subnet.ErrNoConfig):
		return fail("flannel config set 10.5.0.0/16", "answers, but has no network configuration, so no host gets a subnet")
	case err != nil:
		return fail("etcdctl --endpoints="+strings.Join(d.store.flags.Endpoints, ",")+" endpoint health",
			"cannot be used, so leases and peers stay as they are: %v", err)
	}
	return f
}

// clock compares ours with etcd's, and asks the kernel whether it is kept
// (adjtimex(2)). Leases run by a clock of their own.
func (d *doctor) clock(ctx context.Context) finding {
	if d.etcdFound.Verdict == verdictOK || d.etcdFound.Verdict == verdictWarn {
		ahead, endpoint, known := d.aheadOfEtcd(ctx)
		if known && ahead.Abs() > wrongClock {
			return warn("timedatectl set-ntp true, on this host or on etcd's",
				"differs by %v from that of %s: TLS certificates may be refused, and ends of leases are shown wrong; leases do not depend on it", ahead.Abs().Round(time.Second), endpoint)
		}
	}
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		return warn("timedatectl", "cannot be asked: %v", err)
	case state == unix.TIME_ERROR:
		return warn("timedatectl set-ntp true", "is not synchronized: TLS certificates may be refused; leases do not depend on it")
	}
	return okay("is synchronized")
}

// aheadOfEtcd compares the clock with the date that etcd's HTTP side tells
// (RFC 9110, section 6.6.1), at the first endpoint that does.
func (d *doctor) aheadOfEtcd(ctx context.Context) (ahead time.Duration, endpoint string, known bool) {
	c, err := d.store.flags.Validate()
	if err != nil {
		return 0, "", false
	}
	tls, err := c.TLS()
	if err != nil {
		return 0, "", false
	}
	ctx, cancel := context.WithTimeout(ctx, d.store.timeout)
	defer cancel()
	client := http.Client{Transport: &http.Transport{TLSClientConfig: tls, DisableKeepAlives: true}}
	for _, endpoint := range c.Endpoints {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/version", nil)
		if err != nil {
			continue
		}
		resp, err := client.Do(req)
		if err != nil {
			continue
		}
		resp.Body.Close()
		if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			return time.Since(date), endpoint, true
		}
	}
	return 0, "", false
}

func (d *doctor) daemon(context.Context) finding {
	switch {
	case d.status.addr == "":
		return finding{}
	case d.noReport != nil:
		return warn("systemctl start flannel", "does not answer, so this host has no way to the others: %v", d.noReport)
	case !d.report.Ready:
		return fail("flannel wait, and journalctl -u flannel", "is not ready: %s", strings.Join(d.report.NotReady, "; "))
	case d.report.ConfigRefused != "":
		return warn("systemctl restart flannel", "is ready, but refuses a change of the configuration until it is restarted: %s", d.report.ConfigRefused)
	}
	return okay("is ready, version %s", d.report.Version)
}
