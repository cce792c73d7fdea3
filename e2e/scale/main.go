// Command scale measures the load of a large cluster on one host and on etcd. It
// runs etcd, many simulated hosts, which are control planes only, and then a real
// daemon with many leases.
//
//	go run ./e2e/scale -hosts 1000 -leases 10000 -backends udp,vxlan,host-gw
//
// It needs root for the daemon's network namespace, and etcd in PATH. For the
// processor times the machine must be otherwise idle.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

// startLimit bounds the wait for a program to be ready.
const startLimit = time.Minute

// scale is one run of the program.
type scale struct {
	*netnstest.Program

	flannel       string
	hosts, leases int
	newcomers     int
	backends      string
	idle          time.Duration // the duration of a measurement of idle hosts
	probe         time.Duration
	pprof         string

	out      io.Writer
	dir      string
	endpoint string
	etcd     *exec.Cmd
}

func main() {
	s := &scale{Program: &netnstest.Program{Log: os.Stderr}, out: os.Stdout}
	flag.StringVar(&s.flannel, "flannel", "bin/flannel", "the program to measure")
	flag.IntVar(&s.hosts, "hosts", 1000, "how many simulated hosts; 0: none")
	flag.IntVar(&s.leases, "leases", 10000, "how many leases a real daemon sees")
	flag.IntVar(&s.newcomers, "newcomers", 100, "how many hosts join a cluster of that many leases at once; 0: none")
	flag.StringVar(&s.backends, "backends", strings.Join(slices.Sorted(maps.Keys(kinds)), ","), "what the daemon carries packets with, one after the other; empty: no daemon")
	flag.DurationVar(&s.probe, "probe-interval", 2*time.Second, "the daemon's -probe-interval; 0: no probes")
	flag.StringVar(&s.pprof, "pprof", "", "a folder for profiles of the daemon's memory and processor time")
	flag.DurationVar(&s.idle, "idle", time.Minute, "how long to measure an idle cluster")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C kills; the next run then removes the remains.
	context.AfterFunc(ctx, stop)
	err := s.Do(func() error { return s.run(ctx) })
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "scale: %v\n", err)
		os.Exit(1)
	}
}

func (s *scale) run(ctx context.Context) (err error) {
	netnstest.Require(s)
	if s.dir, err = os.MkdirTemp("", "flannel-scale-"); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	s.Cleanup(func() { os.RemoveAll(s.dir) })
	if err := s.startEtcd(ctx); err != nil {
		return err
	}
	if s.hosts > 0 {
		if err := s.measureHosts(ctx); err != nil {
			return err
		}
	}
	if s.newcomers > 0 {
		if err := s.measureNewcomers(ctx); err != nil {
			return fmt.Errorf("newcomers: %w", err)
		}
	}
	for _, name := range strings.FieldsFunc(s.backends, func(r rune) bool { return r == ',' }) {
		k, ok := kinds[name]
		if !ok {
			return fmt.Errorf("-backends: %q is not known", name)
		}
		if err := s.measureDaemon(ctx, name, k); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (s *scale) printf(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// quantiles formats the median, the 99th percentile and the largest of d.
func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	slices.Sort(d)
	at := func(q float64) time.Duration { return d[int(q*float64(len(d)-1))].Round(time.Millisecond) }
	return fmt.Sprintf("median %v, p99 %v, max %v", at(0.5), at(0.99), at(1))
}
