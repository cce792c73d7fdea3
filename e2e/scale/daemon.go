package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/subnet/subnettest/faultproxy"
)

// storePort is where the daemon's host finds etcd.
const storePort = "2379"

// measureDaemon runs a real one, in a namespace of its own, which reaches etcd
// through a relay.
func (s *scale) measureDaemon(ctx context.Context) error {
	lab := netnstest.New(s)
	store, host := lab.Host("etcd"), lab.Host("host")
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	at := net.JoinHostPort(store.Addr().Addr().String(), storePort)
	relay := faultproxy.New(faultproxy.Config{
		Listen: func(ctx context.Context) (net.Listener, error) { return store.Listen(ctx, "tcp", at) },
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", strings.TrimPrefix(s.endpoint, "http://"))
		},
	})
	g.Go(func() error { return relay.Run(ctx) })
	s.Cleanup(func() { cancel(); _ = g.Wait() }) // of no matter any more

	env := filepath.Join(s.dir, "subnet.env")
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	defer log.Close()
	cmd := host.Command(ctx, s.flannel, "-etcd-endpoints=http://"+at, "-subnet-file="+env, "-state-dir="+filepath.Join(s.dir, "state"))
	cmd.Stderr = log
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.flannel, err)
	}
	s.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // killed: there is an error always
	})
	var peers int
	for !time.Now().After(began.Add(startLimit)) {
		resp, err := host.HTTP().Get("http://127.0.0.1:8286/api/v1/status")
		if err == nil {
			var status struct {
				Ready   bool
				Backend struct{ Peers []struct{} }
			}
			err = json.NewDecoder(resp.Body).Decode(&status)
			resp.Body.Close()
			if err == nil && status.Ready {
				peers = len(status.Backend.Peers)
				break
			}
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	if peers == 0 {
		text, _ := os.ReadFile(log.Name()) // what there is of it
		return fmt.Errorf("the daemon is not ready within %v:\n%s", startLimit, text)
	}
	s.printf("start: a daemon is ready with %d peers after %v", peers, time.Since(began).Round(time.Millisecond))
	// What the start has left for the collector goes within its two minutes;
	// the peak is what a host must have.
	if err := pause(ctx, s.idle); err != nil {
		return err
	}
	before := s.processorOf(cmd.Process.Pid)
	if err := pause(ctx, s.idle); err != nil {
		return err
	}
	used := s.processorOf(cmd.Process.Pid) - before
	s.printf("daemon: with %d peers, %s; idle, it uses %.2f %% of a processor", peers,
		memory(cmd.Process.Pid), 100*used.Seconds()/s.idle.Seconds())
	return nil
}

// memory is what the process has in RAM now and had at most, and how much of it
// is its own (not pages of the program's file).
func memory(pid int) string {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return err.Error()
	}
	status, err := p.NewStatus()
	if err != nil {
		return err.Error()
	}
	const mb = 1 << 20
	return fmt.Sprintf("%d MB resident (%d MB without the program's file), %d MB at most",
		status.VmRSS/mb, status.RssAnon/mb, status.VmHWM/mb)
}

// processorOf is the processor time that a process has used.
func (s *scale) processorOf(pid int) time.Duration {
	p, err := procfs.NewProc(pid)
	if err != nil {
		s.Fatalf("read process %d: %v", pid, err)
	}
	stat, err := p.Stat()
	if err != nil {
		s.Fatalf("read process %d: %v", pid, err)
	}
	return time.Duration(stat.CPUTime() * float64(time.Second))
}
