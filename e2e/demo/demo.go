package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/subnetfile"
)

// statusURL is a daemon's status server, inside its host.
const statusURL = "http://127.0.0.1:8286"

// stopTimeout bounds the end of a daemon before it is killed.
const stopTimeout = 5 * time.Second

type demo struct {
	*netnstest.Program
	program string
	out     io.Writer
	nodes   []*node
}

// node is a host, its daemon and its container.
type node struct {
	*netnstest.Host
	envFile, logFile string
	process          *netnstest.Process

	env       subnetfile.Env
	container *netnstest.Host
	dataPath  string
}

// start starts hosts, daemons and containers.
func (d *demo) start(ctx context.Context) {
	dir, err := os.MkdirTemp("", "flannel-demo-")
	if err != nil {
		d.Fatalf("make folder: %v", err)
	}
	d.Cleanup(func() { os.RemoveAll(dir) })
	lab := netnstest.New(d)
	var store string
	for i := range hosts {
		h := lab.DualHost(fmt.Sprintf("host%d", i+1))
		n := &node{
			Host:    h,
			envFile: filepath.Join(dir, h.Name(), "subnet.env"),
			logFile: filepath.Join(dir, h.Name()+".log"),
		}
		d.nodes = append(d.nodes, n)
		args := []string{"-subnet-file=" + n.envFile, "-state-dir=" + filepath.Join(dir, h.Name())}
		if i == 0 {
			store = h.Addr().Addr().String() + ":2379"
			args = append(args, "-etcd-embed", "-etcd-embed-listen="+store, "-network="+network)
		} else {
			args = append(args, "-etcd-endpoints=http://"+store)
		}
		d.startDaemon(n, args)
	}
	for _, n := range d.nodes {
		d.awaitReady(ctx, n)
		d.addContainer(n)
	}
}

// startDaemon starts the daemon of n, which ends with the scope.
func (d *demo) startDaemon(n *node, args []string) {
	log, err := os.Create(n.logFile)
	if err != nil {
		d.Fatalf("make log: %v", err)
	}
	defer log.Close()
	// The daemon ends by a signal, as in production, not with the demo's context.
	cmd := n.Command(context.Background(), d.program, args...)
	cmd.Stderr = log
	if n.process, err = cmd.Launch(); err != nil {
		d.Fatalf("start daemon on %s: %v", n.Name(), err)
	}
	d.Cleanup(func() {
		if err := n.process.Stop(stopTimeout); err != nil {
			d.Logf("stop daemon on %s: %v", n.Name(), err)
		}
	})
}

// awaitReady waits until the daemon of n is ready.
func (d *demo) awaitReady(ctx context.Context, n *node) {
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		err := n.readStatus(ctx)
		if err == nil {
			break
		}
		select {
		case <-poll.C:
		case <-n.process.Ended():
			d.fail(n, "daemon on %s ended", n.Name())
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				d.Fatalf("interrupted")
			}
			d.fail(n, "daemon on %s is not ready: %v", n.Name(), err)
		}
	}
	var err error
	if n.env, err = subnetfile.Read(n.envFile); err != nil {
		d.fail(n, "read subnet.env of %s: %v", n.Name(), err)
	}
}

// readStatus reads the daemon's status; an error if it is not ready.
func (n *node) readStatus(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, statusURL+"/api/v1/status", nil)
	if err != nil {
		return err
	}
	resp, err := n.HTTP().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var status struct {
		Ready   bool
		Backend struct{ DataPath string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		return fmt.Errorf("read status: %w", err)
	}
	if !status.Ready {
		return errors.New("its status is not ready")
	}
	n.dataPath = status.Backend.DataPath
	return nil
}

// addContainer adds a bridge and a container as Docker does with --bip and --mtu.
func (d *demo) addContainer(n *node) {
	gateway := n.env.Subnet.Addr().Next()
	bits := n.env.Subnet.Bits()
	n.Bridge("docker0", netip.PrefixFrom(gateway, bits), n.env.MTU)
	n.container = n.Container("container"+strings.TrimPrefix(n.Name(), "host"), "docker0",
		netip.PrefixFrom(gateway.Next(), bits), gateway, n.env.MTU)
	n.AddIPv6("docker0", n.container, n.env.IPv6Subnet)
}

// fail logs the end of the log of n, and ends the demo.
func (d *demo) fail(n *node, format string, args ...any) {
	if log, err := os.ReadFile(n.logFile); err == nil {
		const last = 10
		lines := slices.Collect(strings.Lines(string(log)))
		d.Logf("%s", strings.Join(lines[max(0, len(lines)-last):], ""))
	}
	d.Fatalf(format, args...)
}
