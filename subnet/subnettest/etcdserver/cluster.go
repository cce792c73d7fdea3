package etcdserver

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Cluster is an etcd of several members. Each is a [Server] that can be stopped,
// paused and restarted separately.
type Cluster struct {
	Members []*Server

	tb testing.TB
}

// StartCluster runs a cluster of n members and waits until each answers. With
// o.Listen, "10.0.0.1:2379", the members use the ports from there on, two each;
// without, free loopback ports.
func StartCluster(tb testing.TB, n int, o Options) *Cluster {
	tb.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		tb.Skip("etcd is not in PATH; install the Debian package etcd-server")
	}
	c := &Cluster{tb: tb}
	var members []string
	for i := range n {
		s := &Server{tb: tb, o: o, dir: tb.TempDir(), name: "member" + strconv.Itoa(i)}
		s.listen, s.peer = memberAddrs(tb, o.Listen, i)
		members = append(members, s.name+"=http://"+s.peer)
		c.Members = append(c.Members, s)
		tb.Cleanup(s.Stop)
	}
	for _, s := range c.Members {
		s.members = strings.Join(members, ",")
	}
	c.Restart()
	return c
}

func memberAddrs(tb testing.TB, listen string, i int) (client, peer string) {
	tb.Helper()
	if listen == "" {
		return FreeAddr(tb), FreeAddr(tb)
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		tb.Fatalf("start etcd cluster: %v", err)
	}
	first, err := strconv.Atoi(port)
	if err != nil {
		tb.Fatalf("start etcd cluster: %v", err)
	}
	at := func(n int) string { return net.JoinHostPort(host, strconv.Itoa(first+2*i+n)) }
	return at(0), at(1)
}

// URLs returns the members' client endpoints.
func (c *Cluster) URLs() []string {
	var urls []string
	for _, s := range c.Members {
		urls = append(urls, s.URL())
	}
	return urls
}

// Stop kills every member, like a power cut.
func (c *Cluster) Stop() {
	for _, s := range c.Members {
		s.Stop()
	}
}

// Restart starts the stopped members with their addresses and data, all at once:
// a member without a majority waits for the others.
func (c *Cluster) Restart() {
	c.tb.Helper()
	var started []*Server
	for _, s := range c.Members {
		if s.cmd == nil {
			s.run()
			started = append(started, s)
		}
	}
	for _, s := range started {
		if err := s.waitReady(); err != nil {
			c.tb.Fatalf("start etcd %s: %v\n%s", s.name, err, s.log.Bytes())
		}
	}
}

// Wipe stops all members and deletes their data: the next Restart creates a new
// store.
func (c *Cluster) Wipe() {
	c.tb.Helper()
	for _, s := range c.Members {
		s.Wipe()
	}
}

// Snapshot saves the store with "etcdctl snapshot save" and returns the file.
func (c *Cluster) Snapshot(ctx context.Context) string {
	c.tb.Helper()
	file := filepath.Join(c.tb.TempDir(), "snapshot")
	member := c.Members[0]
	c.control(ctx, member.o.Command, "--endpoints="+member.URL(), "snapshot", "save", file)
	return file
}

// Restore stops all members and restores a snapshot for each. The next Restart
// serves it as a new cluster.
func (c *Cluster) Restore(ctx context.Context, snapshot string) {
	c.tb.Helper()
	c.Wipe()
	for _, s := range c.Members {
		c.control(ctx, nil, "snapshot", "restore", snapshot, "--name="+s.name, "--data-dir="+s.dataDir(),
			"--initial-cluster="+s.members, "--initial-advertise-peer-urls=http://"+s.peer)
	}
}

// Copy copies the data of all running members as of one moment, see [Server.Copy].
func (c *Cluster) Copy() (copies []string) {
	c.tb.Helper()
	for _, s := range c.Members {
		s.Pause()
		defer s.Resume()
	}
	for _, s := range c.Members {
		copies = append(copies, s.copyData())
	}
	return copies
}

// PutBack stops all members and replaces their data by copies.
func (c *Cluster) PutBack(copies []string) {
	c.tb.Helper()
	c.Stop()
	for i, s := range c.Members {
		s.PutBack(copies[i])
	}
}

func (c *Cluster) control(ctx context.Context, command []string, args ...string) {
	c.tb.Helper()
	line := append(append(append([]string{}, command...), "etcdctl"), args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	if out, err := cmd.CombinedOutput(); err != nil {
		c.tb.Fatalf("run %v: %v\n%s", line, err, out)
	}
}
