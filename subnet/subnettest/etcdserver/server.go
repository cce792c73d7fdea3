// Package etcdserver runs the machine's etcd binary for tests: one member or a
// cluster, its data in the test's temporary folder, ended with the test.
package etcdserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"

	"github.com/coreos/flannel/subnet/etcd"
)

// startLimit bounds the wait for a server to answer.
const startLimit = 20 * time.Second

// Options say what kind of server. The zero value is one that speaks the v3 API
// over plain HTTP on a free port of the loopback.
type Options struct {
	// V2 turns the v2 API on, beside v3.
	V2 bool
	// TLS serves https with a certificate of a CA made for this server;
	// ClientCert demands one of the clients as well.
	TLS, ClientCert bool
	// User, if not empty, must log in with Password, and has the rights to
	// Prefix only; nobody else has any. With V2 this holds for both keyspaces.
	User, Password, Prefix string
	// Listen is the client address, "10.0.0.1:2379"; empty: a free loopback one.
	Listen string
	// Command goes before the etcd command line, as in "ip netns exec blue".
	Command []string
	// Args are appended to the etcd command line.
	Args []string
}

// Server is a running etcd. Its methods are for the test's own goroutine.
type Server struct {
	// CAFile, CertFile and KeyFile are the client's; empty without TLS.
	CAFile, CertFile, KeyFile string

	tb           testing.TB
	o            Options
	dir          string
	listen, peer string
	tls          *tls.Config
	cmd          *exec.Cmd
	done         chan struct{} // closed when cmd has been waited for
	log          *syncBuffer
	// name is the member's, members all of them in the form of
	// --initial-cluster; empty for one alone.
	name, members string
}

// Start runs a server and waits until it answers. It skips the test where there
// is no etcd binary.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		tb.Skip("etcd is not in PATH; install the Debian package etcd-server")
	}
	s := &Server{tb: tb, o: o, dir: tb.TempDir()}
	if o.TLS || o.ClientCert {
		s.o.TLS = true
		s.makeCertificates()
	}
	tb.Cleanup(s.Stop)
	s.start(s.choosePorts)
	if o.User != "" {
		s.enableAuth()
	}
	return s
}

// URL is the client endpoint.
func (s *Server) URL() string {
	if s.o.TLS {
		return "https://" + s.listen
	}
	return "http://" + s.listen
}

// ClientConfig returns the configuration of a client for the keys below prefix.
func (s *Server) ClientConfig(prefix string) etcd.ClientConfig {
	c := etcd.ClientConfig{Endpoints: []string{s.URL()}, Prefix: prefix, CAFile: s.CAFile,
		Username: s.o.User, Password: s.o.Password}
	if s.o.ClientCert {
		c.CertFile, c.KeyFile = s.CertFile, s.KeyFile
	}
	return c
}

// Stop ends the server as a power cut would. It may be called again.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	s.signal(syscall.SIGKILL)
	<-s.done
	s.cmd = nil
}

// Restart brings a stopped server back on the same address and data.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Stop()
	s.start(func() {})
}

// Wipe stops the server and deletes its data: the next Restart makes a new store.
func (s *Server) Wipe() {
	s.tb.Helper()
	s.Stop()
	if err := os.RemoveAll(s.dataDir()); err != nil {
		s.tb.Fatalf("delete etcd's data: %v", err)
	}
}

func (s *Server) dataDir() string { return filepath.Join(s.dir, "data") }

// Pause makes the server fall silent: the kernel still accepts connections. It
// returns when every thread has stopped, which is after the signal is sent.
func (s *Server) Pause() {
	s.tb.Helper()
	s.signal(syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(s.tb.Context(), startLimit)
	defer cancel()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for {
		stopped, err := groupStopped(s.cmd.Process.Pid)
		if err != nil {
			s.tb.Fatalf("pause etcd: %v", err)
		}
		if stopped {
			return
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			s.tb.Fatalf("pause etcd: it still runs after %v", startLimit)
		}
	}
}

// groupStopped reports whether all threads of a process group are in state T.
func groupStopped(group int) (bool, error) {
	all, err := procfs.AllProcs()
	if err != nil {
		return false, err
	}
	for _, p := range all {
		if stat, err := p.Stat(); err != nil || stat.PGRP != group {
			continue // somebody else's, or gone
		}
		threads, err := procfs.AllThreads(p.PID)
		if err != nil {
			return false, err
		}
		for _, t := range threads {
			if stat, err := t.Stat(); err == nil && stat.State != "T" {
				return false, nil
			}
		}
	}
	return true, nil
}

// Resume ends a Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

// signal goes to the process group, which holds Command's children too.
func (s *Server) signal(sig syscall.Signal) {
	if s.cmd == nil {
		s.tb.Fatalf("signal etcd: it is not running")
	}
	if err := syscall.Kill(-s.cmd.Process.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.tb.Errorf("signal etcd: %v", err)
	}
}

func (s *Server) choosePorts() {
	s.listen, s.peer = s.o.Listen, FreeAddr(s.tb)
	if s.listen == "" {
		s.listen = FreeAddr(s.tb)
	}
}

// start runs etcd until it answers. Ports are free when chosen, not when used;
// a server that lost its port to somebody else gets others.
func (s *Server) start(choose func()) {
	s.tb.Helper()
	for attempt := 1; ; attempt++ {
		choose()
		s.run()
		err := s.waitReady()
		if err == nil {
			return
		}
		s.Stop()
		if attempt == 3 || !bytes.Contains(s.log.Bytes(), []byte("address already in use")) {
			s.tb.Fatalf("start etcd: %v\n%s", err, s.log.Bytes())
		}
	}
}

func (s *Server) run() {
	s.tb.Helper()
	name, members, heartbeat, election := "test", "test=http://"+s.peer, "20", "200"
	if s.members != "" {
		// Members that share two processors with all else hear of each other late.
		name, members, heartbeat, election = s.name, s.members, "100", "1000"
	}
	args := append(append([]string{}, s.o.Command...), "etcd",
		"--name="+name, "--data-dir="+s.dataDir(),
		"--listen-client-urls="+s.URL(), "--advertise-client-urls="+s.URL(),
		"--listen-peer-urls=http://"+s.peer, "--initial-advertise-peer-urls=http://"+s.peer,
		"--initial-cluster="+members,
		// A member alone has nobody to wait for; and the shortest TTL that a
		// server grants is one and a half election timeouts.
		"--heartbeat-interval="+heartbeat, "--election-timeout="+election,
		"--bcrypt-cost=4", "--logger=zap", "--log-level=warn")
	if s.o.V2 {
		args = append(args, "--enable-v2")
	}
	if s.o.TLS {
		args = append(args, "--cert-file="+s.serverFile("crt"), "--key-file="+s.serverFile("key"))
	}
	if s.o.ClientCert {
		args = append(args, "--client-cert-auth", "--trusted-ca-file="+s.CAFile)
	}
	args = append(args, s.o.Args...)
	s.log, s.done = &syncBuffer{}, make(chan struct{})
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.Env = append(os.Environ(), "ETCD_UNSUPPORTED_ARCH=arm64") // wanted on arm64, ignored elsewhere
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func(cmd *exec.Cmd, done chan<- struct{}) {
		// The kernel takes the end of the thread that forked for the parent's
		// death (prctl(2), PR_SET_PDEATHSIG), so this one stays until the wait is over.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // killed: there is an error always
		}
	}(s.cmd, s.done)
	if err := <-started; err != nil {
		s.cmd = nil
		s.tb.Fatalf("start etcd: %v", err)
	}
}

// waitReady returns when the server, which opens its client port only when it
// has joined its cluster, answers.
func (s *Server) waitReady() error {
	ctx, cancel := context.WithTimeout(s.tb.Context(), startLimit)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	if len(s.o.Command) > 0 {
		return s.waitListen(ctx, poll)
	}
	transport := &http.Transport{TLSClientConfig: s.tls, DisableKeepAlives: true}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+"/version", nil)
		if err != nil {
			return err
		}
		resp, err := transport.RoundTrip(req)
		if err == nil {
			return resp.Body.Close()
		}
		select {
		case <-poll.C:
		case <-s.done:
			return errors.New("it ended")
		case <-ctx.Done():
			return fmt.Errorf("no answer within %v: %w", startLimit, err)
		}
	}
}

// waitListen is for a server behind Command, perhaps in a network namespace
// that we do not see into: its log must tell.
func (s *Server) waitListen(ctx context.Context, poll *time.Ticker) error {
	for !bytes.Contains(s.log.Bytes(), []byte("serving")) {
		select {
		case <-poll.C:
		case <-s.done:
			return errors.New("it ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// FreeAddr is a loopback address that nobody listened on a moment ago.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("find a free port: %v", err)
	}
	defer l.Close()
	return l.Addr().String()
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) Bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.b.Bytes())
}
