// Package etcdserver runs the machine's etcd binary for tests, as one member or a
// cluster. Data are in the test's temporary folder; servers end with the test.
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

// Options are the options of a Server. The zero value serves the v3 API over plain
// HTTP on a free loopback port.
type Options struct {
	// V2 enables the v2 API beside v3.
	V2 bool
	// TLS serves https with a certificate of a CA made for this server.
	// ClientCert requires one of the clients as well.
	TLS, ClientCert bool
	// User, if not empty, must log in with Password and may use the keys below
	// Prefix; other users have no rights. With V2 this holds for both keyspaces.
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
	// name is the member's name, members all members in the form of
	// --initial-cluster; both are empty for a single server.
	name, members string
}

// Start runs a server and waits until it answers. It skips the test if there is
// no etcd binary.
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

// URL returns the client endpoint.
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

// Stop kills the server, like a power cut. It may be called again.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	s.signal(syscall.SIGKILL)
	<-s.done
	s.cmd = nil
}

// Restart starts a stopped server with the same address and data.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Stop()
	s.start(func() {})
}

// Wipe stops the server and deletes its data: the next Restart creates a new
// store.
func (s *Server) Wipe() {
	s.tb.Helper()
	s.Stop()
	if err := os.RemoveAll(s.dataDir()); err != nil {
		s.tb.Fatalf("delete etcd's data: %v", err)
	}
}

// Copy copies the data of the running server, as they would be on its disk after a
// power cut, and returns the copy's folder.
func (s *Server) Copy() string {
	s.tb.Helper()
	s.Pause()
	defer s.Resume()
	return s.copyData()
}

func (s *Server) copyData() string {
	s.tb.Helper()
	to := s.tb.TempDir()
	if err := os.CopyFS(to, os.DirFS(s.dataDir())); err != nil {
		s.tb.Fatalf("copy etcd's data: %v", err)
	}
	return to
}

// PutBack stops the server and replaces its data by a copy. The next Restart
// serves them with the same cluster and member ids.
func (s *Server) PutBack(copied string) {
	s.tb.Helper()
	s.Wipe()
	if err := os.CopyFS(s.dataDir(), os.DirFS(copied)); err != nil {
		s.tb.Fatalf("put etcd's data back: %v", err)
	}
	if err := os.Chmod(s.dataDir(), 0o700); err != nil { // etcd requires it
		s.tb.Fatalf("put etcd's data back: %v", err)
	}
}

func (s *Server) dataDir() string { return filepath.Join(s.dir, "data") }

// Pause stops the server's threads; the kernel still accepts connections. It
// returns when every thread has stopped, some time after the signal is sent.
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
			continue // of another group, or gone
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

// start runs etcd until it answers. Another process may take a port after it was
// chosen; start then chooses other ports.
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
		// On two shared processors, members' heartbeats arrive late.
		name, members, heartbeat, election = s.name, s.members, "100", "1000"
	}
	args := append(append([]string{}, s.o.Command...), "etcd",
		"--name="+name, "--data-dir="+s.dataDir(),
		"--listen-client-urls="+s.URL(), "--advertise-client-urls="+s.URL(),
		"--listen-peer-urls=http://"+s.peer, "--initial-advertise-peer-urls=http://"+s.peer,
		"--initial-cluster="+members,
		// A single member waits for no other. The shortest TTL that a server
		// grants is one and a half election timeouts.
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
	s.cmd.Env = append(os.Environ(), "ETCD_UNSUPPORTED_ARCH=arm64") // required on arm64, ignored elsewhere
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func(cmd *exec.Cmd, done chan<- struct{}) {
		// PR_SET_PDEATHSIG (prctl(2)) fires when the forking thread ends, so this
		// thread stays until the wait is over.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // killed: there is always an error
		}
	}(s.cmd, s.done)
	if err := <-started; err != nil {
		s.cmd = nil
		s.tb.Fatalf("start etcd: %v", err)
	}
}

// waitReady waits until the server answers. It opens its client port only when it
// has joined its cluster.
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

// waitListen waits for the log line of a server behind Command, which may be in
// another network namespace.
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

// FreeAddr returns a loopback address that was free a moment ago.
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
