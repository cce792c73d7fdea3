package cli

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/subnet"
)

const (
	// slowStore is the latency from which etcd is slow. On a local network with a
	// disk of its own etcd answers within a few milliseconds.
	slowStore = 250 * time.Millisecond
	// clockLimit is the difference to etcd's clock from which ours is wrong. An HTTP
	// date has a resolution of a second.
	clockLimit = 5 * time.Second
)

func checkStore(f *facts) finding {
	switch s := f.store; {
	case !f.flags.etcd:
		return finding{}
	case f.inKubernetes():
		return checkCluster(f)
	case errors.Is(s.err, subnet.ErrNoConfig):
		return failed("flannel config set 10.5.0.0/16", "answers, but has no network configuration, so no host gets a subnet")
	case s.err != nil:
		return failed("etcdctl --endpoints="+strings.Join(f.flags.store.flags.Endpoints, ",")+" endpoint health",
			"is not available, so leases and peers do not change: %v", s.err)
	case f.configErr != nil:
		return failed("flannel config set CONFIG", "answers, but the network configuration is not valid: %v", f.configErr)
	case s.warning != "":
		return warn("etcdctl --endpoints="+strings.Join(f.flags.store.flags.Endpoints, ",")+" endpoint status", "%s", s.warning)
	case s.latency > slowStore:
		return warn("etcdctl endpoint status, and look at its disk", "answers after %v, which is slow: leases are renewed late, and new peers are known late", s.latency)
	default:
		return okay("API %s answers after %v; network %s, backend %s", s.api, s.latency, f.config.Networks(), f.config.BackendType)
	}
}

// checkClock compares our clock with etcd's, and reads from the kernel whether it
// is synchronized (adjtimex(2)). Leases do not depend on the wall clock.
func checkClock(ctx context.Context, f *facts) finding {
	if f.config != nil && !f.inKubernetes() {
		offset, endpoint, known := clockOffset(ctx, f.flags.store)
		if known && offset.Abs() > clockLimit {
			return warn("timedatectl set-ntp true, on this host or on etcd's",
				"differs by %v from that of %s: TLS certificates may be refused, and expirations are shown wrong; leases do not depend on it", offset.Abs().Round(time.Second), endpoint)
		}
	}
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		return warn("timedatectl", "cannot be read: %v", err)
	case state == unix.TIME_ERROR:
		return warn("timedatectl set-ntp true", "is not synchronized: TLS certificates may be refused; leases do not depend on it")
	}
	return okay("is synchronized")
}

// clockOffset returns how far our clock is ahead of the date in an HTTP response
// of etcd (RFC 9110, section 6.6.1), from the first endpoint that has one.
func clockOffset(ctx context.Context, o *storeFlags) (offset time.Duration, endpoint string, known bool) {
	c, err := o.flags.Validate()
	if err != nil {
		return 0, "", false
	}
	tls, err := c.TLS()
	if err != nil {
		return 0, "", false
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
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

func checkDaemon(f *facts) finding {
	switch {
	case f.flags.store.status.addr == "":
		return finding{}
	case f.reportErr != nil:
		return warn("systemctl start flannel", "does not answer, so this host has no route to the others: %v", f.reportErr)
	case !f.report.Ready:
		return failed("flannel wait, and journalctl -u flannel", "is not ready: %s", strings.Join(f.report.NotReady, "; "))
	case f.report.ConfigRefused != "":
		return warn("systemctl restart flannel", "is ready, but applies a change of the configuration only after a restart: %s", f.report.ConfigRefused)
	case len(f.report.Losses) > 0:
		return warn("see the reason", "is ready, but %s", strings.Join(f.report.Losses, "; "))
	}
	return okay("is ready, version %s", f.report.Version)
}
