package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/subnet/subnettest/faultproxy"
)

const (
	// storePort is etcd's port for the daemon's host.
	storePort = "2379"
	// settleTime is the pause between a daemon's start and its measurement.
	settleTime = 20 * time.Second
	// statusURL is the daemon's default status endpoint.
	statusURL = "http://127.0.0.1:8286"
)

// measureDaemon runs and measures a daemon in its own network namespace, which
// reaches etcd through a relay.
func (s *scale) measureDaemon(ctx context.Context, name string, k kind) error {
	prefix := "/" + name
	if _, err := s.network(ctx, prefix, k.backendType); err != nil {
		return err
	}
	if err := s.fill(ctx, prefix, s.leases, k.attrs); err != nil {
		return err
	}
	p := &netnstest.Program{Log: os.Stderr} // it removes its hosts before the next daemon's
	return p.Do(func() error {
		g, ctx := errgroup.WithContext(ctx)
		ctx, cancel := context.WithCancel(ctx)
		p.Cleanup(func() { cancel(); _ = g.Wait() }) // the measurement is over
		h, err := s.makeHost(ctx, g, netnstest.New(p), k)
		if err != nil {
			return err
		}
		d := daemon{scale: s, host: h, name: name, kind: k, prefix: prefix, dir: filepath.Join(s.dir, name)}
		if err := d.start(ctx, p); err != nil {
			return err
		}
		return d.measure(ctx)
	})
}

// makeHost makes a host. Its switch answers for all other hosts and relays
// connections to etcd.
func (s *scale) makeHost(ctx context.Context, g *errgroup.Group, lab *netnstest.Lab, k kind) (*netnstest.Host, error) {
	peers, h := lab.Router(), lab.Host("host")
	if err := s.answerPings(ctx, g, peers); err != nil {
		return nil, err
	}
	if k.onLink {
		h.AddRoute(hostRange, netip.Addr{}, netnstest.Uplink)
	}
	relay := faultproxy.New(faultproxy.Config{
		Listen: func(ctx context.Context) (net.Listener, error) {
			return peers.Listen(ctx, "tcp", net.JoinHostPort(peers.Addr().Addr().String(), storePort))
		},
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", strings.TrimPrefix(s.endpoint, "http://"))
		},
	})
	g.Go(func() error { return relay.Run(ctx) })
	return h, nil
}

// daemon is the measured program.
type daemon struct {
	*scale
	kind
	host   *netnstest.Host
	name   string
	prefix string
	dir    string
	cmd    *netnstest.Cmd
}

// start starts the daemon and waits until it is ready.
func (d *daemon) start(ctx context.Context, scope *netnstest.Program) error {
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	log, err := os.Create(filepath.Join(d.dir, "log"))
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	defer log.Close() // the daemon has a duplicate
	args := append([]string{
		"-etcd-endpoints=http://" + net.JoinHostPort("192.168.77.254", storePort), "-etcd-prefix=" + d.prefix,
		"-subnet-file=" + filepath.Join(d.dir, "env"), "-state-dir=" + filepath.Join(d.dir, "state"),
		"-probe-interval=" + d.probe.String(), "-status-pprof",
	}, d.flags...)
	d.cmd = d.host.Command(ctx, d.flannel, args...)
	d.cmd.Stderr = log
	began := time.Now()
	if err := d.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", d.flannel, err)
	}
	scope.Cleanup(func() {
		_ = d.cmd.Process.Kill() // it may have ended
		_ = d.cmd.Wait()         // killed: there is always an error
	})
	for !d.is("/readyz") {
		if time.Since(began) > startLimit {
			text, _ := os.ReadFile(log.Name()) // as far as it was written
			return fmt.Errorf("the daemon is not ready within %v:\n%s", startLimit, text)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	d.printf("%s: a daemon is ready with %d peers after %v", d.name, d.leases, time.Since(began).Round(time.Millisecond))
	return nil
}

func (d *daemon) is(path string) bool {
	resp, err := d.host.HTTP().Get(statusURL + path)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// measure measures the idle daemon.
func (d *daemon) measure(ctx context.Context) error {
	pid := d.cmd.Process.Pid
	d.printf("%s: at the start, %s", d.name, memory(pid))
	// The daemon returns the memory of its start within 10 seconds. A host needs
	// the peak.
	if err := pause(ctx, settleTime); err != nil {
		return err
	}
	used, woken := d.processorOf(pid), d.wakeups(pid)
	if err := pause(ctx, d.idle); err != nil {
		return err
	}
	used, woken = d.processorOf(pid)-used, d.wakeups(pid)-woken
	d.printf("%s: idle for %v, it uses %.3f %% of a processor, with %.0f wake-ups a second; %s", d.name, d.idle,
		100*used.Seconds()/d.idle.Seconds(), float64(woken)/d.idle.Seconds(), memory(pid))
	if err := d.profiles(); err != nil {
		return err
	}
	return d.reportPeers()
}

// reportPeers prints the results of the daemon's probes.
func (d *daemon) reportPeers() error {
	resp, err := d.host.HTTP().Get(statusURL + "/api/v1/status")
	if err != nil {
		return fmt.Errorf("get status: %w", err)
	}
	defer resp.Body.Close()
	var status struct {
		Backend struct {
			DataPath string
			Peers    []struct{ Probe *struct{ Silent bool } }
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		return fmt.Errorf("decode status: %w", err)
	}
	probed, silent := 0, 0
	for _, p := range status.Backend.Peers {
		if p.Probe != nil {
			probed++
			if p.Probe.Silent {
				silent++
			}
		}
	}
	d.printf("%s: data path %s, %d peers, %d of them probed by now, %d do not answer", d.name, status.Backend.DataPath, len(status.Backend.Peers), probed, silent)
	return nil
}

// profiles saves the daemon's profiles of memory and processor time.
func (d *daemon) profiles() error {
	if d.pprof == "" {
		return nil
	}
	if err := os.MkdirAll(d.pprof, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	for file, path := range map[string]string{"heap": "/debug/pprof/heap?gc=1", "memstats": "/debug/pprof/heap?debug=1", "goroutines": "/debug/pprof/goroutine", "cpu": "/debug/pprof/profile?seconds=25"} {
		resp, err := d.host.HTTP().Get(statusURL + path)
		if err != nil {
			return fmt.Errorf("get profile: %w", err)
		}
		data, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil {
			err = os.WriteFile(filepath.Join(d.pprof, d.name+"."+file), data, 0o644)
		}
		if err != nil {
			return fmt.Errorf("save profile: %w", err)
		}
	}
	return nil
}
