// Command scale measures what a large cluster asks of one host and of etcd: it
// runs an etcd, has hosts that are no more than a control plane join it, and
// then a real daemon look at many leases.
//
//	go run ./e2e/scale -hosts 1000 -leases 10000
//
// It needs root, for the daemon's network namespace, and etcd in PATH.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcdv3"
)

// prefix is the default of flannel's -etcd-prefix.
const prefix = "/coreos.com/network"

// config hands out the lower half of Network; the upper one is for leases of
// hosts that are not there.
const config = `{"Network": "10.0.0.0/8", "SubnetLen": 24, "SubnetMax": "10.127.255.0"}`

// startLimit bounds the wait for a program to be ready.
const startLimit = time.Minute

// scale is one run of the program.
type scale struct {
	*netnstest.Program

	flannel       string
	hosts, leases int
	idle          time.Duration // how long it looks at hosts that have nothing to do

	out      io.Writer
	dir      string
	endpoint string
	etcd     *exec.Cmd
}

func main() {
	s := &scale{Program: &netnstest.Program{Log: os.Stderr}, out: os.Stdout}
	flag.StringVar(&s.flannel, "flannel", "bin/flannel", "the program to look at")
	flag.IntVar(&s.hosts, "hosts", 1000, "how many simulated hosts")
	flag.IntVar(&s.leases, "leases", 10000, "how many leases a real daemon sees")
	flag.DurationVar(&s.idle, "idle", 30*time.Second, "how long to look at a cluster in which nothing happens")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C kills; the next run clears up then.
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
	c, err := subnet.ParseConfig([]byte(config))
	if err != nil {
		return err
	}
	if err := s.measureHosts(ctx, c); err != nil {
		return err
	}
	if err := s.fill(ctx); err != nil {
		return err
	}
	return s.measureDaemon(ctx)
}

func (s *scale) printf(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// startEtcd runs a member alone and publishes the configuration.
func (s *scale) startEtcd(ctx context.Context) error {
	var free []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close()
		free = append(free, l.Addr().String())
	}
	s.endpoint = "http://" + free[0]
	s.etcd = exec.CommandContext(ctx, "etcd", "--name=scale", "--data-dir="+filepath.Join(s.dir, "etcd"),
		"--listen-client-urls="+s.endpoint, "--advertise-client-urls="+s.endpoint,
		"--listen-peer-urls=http://"+free[1], "--initial-advertise-peer-urls=http://"+free[1],
		"--initial-cluster=scale=http://"+free[1], "--logger=zap", "--log-level=error")
	s.etcd.Env = append(os.Environ(), "ETCD_UNSUPPORTED_ARCH=arm64") // wanted on arm64, ignored elsewhere
	if err := s.etcd.Start(); err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	s.Cleanup(func() {
		_ = s.etcd.Process.Kill() // it may have ended
		_ = s.etcd.Wait()         // killed: there is an error always
	})
	reg, err := s.open()
	if err != nil {
		return err
	}
	defer reg.Close()
	limited, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		_, err := reg.PublishConfig(limited, []byte(config))
		if err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-limited.Done():
			return fmt.Errorf("wait for etcd: %w", err)
		}
	}
}

func (s *scale) open() (*etcdv3.Registry, error) {
	return etcdv3.New(subnet.StoreConfig{Endpoints: []string{s.endpoint}, Prefix: prefix})
}

// quantiles formats the median, the 99th percentile and the largest of d.
func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	slices.Sort(d)
	at := func(q float64) time.Duration { return d[int(q*float64(len(d)-1))].Round(time.Millisecond) }
	return fmt.Sprintf("median %v, p99 %v, max %v", at(0.5), at(0.99), at(1))
}
