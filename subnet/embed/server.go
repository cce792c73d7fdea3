// Package embed runs an etcd server inside this process, for a network without an
// etcd: one host serves the store, the others use it.
//
// It is a cluster of one, which no other member can join. A stock etcd can be
// started on the same data later.
package embed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	log "github.com/golang/glog"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/coreos/flannel/pkg/backoff"
)

// stopTimeout bounds an orderly stop. A healthy etcd needs milliseconds.
const stopTimeout = 2 * time.Second

// Server is an etcd server; Run runs it.
type Server struct {
	dir, addr string
	ready     chan struct{}
}

// New checks c and starts nothing.
func New(c Config) (*Server, error) {
	if c.Dir == "" {
		return nil, errors.New("check embedded etcd: the data directory is missing")
	}
	addr, err := c.listenAddr()
	if err != nil {
		return nil, fmt.Errorf("check embedded etcd's address %q (flag -etcd-embed-listen): %w", c.Listen, err)
	}
	return &Server{dir: c.Dir, addr: addr, ready: make(chan struct{})}, nil
}

// Endpoint returns the URL by which a client on this host reaches the server.
func (s *Server) Endpoint() string { return "http://" + reachable(s.addr) }

// Ready returns a channel that is closed when the server answers.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx ends (nil) or the server fails (the error). Call it once.
// Run fails at once if another process uses the data or the address. If this host
// does not have the address yet, Run waits for it.
func (s *Server) Run(ctx context.Context) error {
	lock, err := lockDir(s.dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := s.waitAddr(ctx); err != nil {
		return nil // ctx has ended
	}
	fatal := make(chan error, 1)
	level := zap.NewAtomicLevelAt(zap.ErrorLevel)
	serving, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	etcd, err := s.start(serving, newLogger(level, fatal), fatal)
	if err != nil {
		return err
	}
	// Watches never end by themselves, and etcd may wait seven seconds for them.
	stop := func() error { cut(); return closeEtcd(etcd) }
	if !loopback(s.addr) {
		log.Warningf("embedded etcd serves other hosts without TLS or login listen=%s", s.addr)
	}
	ready := etcd.Server.ReadyNotify()
	for err == nil {
		select {
		case <-ready:
			close(s.ready)
			ready = nil
			log.Infof("embedded etcd is ready listen=%s dir=%q", s.addr, s.dir)
			continue
		case <-ctx.Done():
			level.SetLevel(zap.PanicLevel) // from now on listeners close as intended
			return stop()
		case err = <-fatal:
		case err = <-etcd.Err():
			err = fmt.Errorf("serve etcd clients: %w", errors.Join(err, errors.New("the listener ended")))
		case <-etcd.Server.StopNotify():
			err = errors.New("etcd has stopped by itself")
		}
	}
	return errors.Join(fmt.Errorf("run embedded etcd: %w", err), stop())
}

// waitAddr waits until this host has the listen address, as long as ctx allows.
// etcd reports any other problem with the address.
func (s *Server) waitAddr(ctx context.Context) error {
	_, err := backoff.Retry(ctx, "wait for the address of the embedded etcd (flag -etcd-embed-listen)", func() (struct{}, error) {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.addr)
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			return struct{}{}, err
		}
		if err == nil {
			l.Close()
		}
		return struct{}{}, nil
	})
	return err
}

// start starts etcd in a goroutine, which a fatal error of etcd may end. The end of
// serving closes the connections of clients, present and future.
func (s *Server) start(serving context.Context, lg *zap.Logger, fatal chan error) (etcd *embed.Etcd, err error) {
	cfg := etcdConfig(s.dir, s.addr, lg)
	cfg.ServiceRegister = func(g *grpc.Server) { context.AfterFunc(serving, g.Stop) }
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			// etcd's deferred functions may panic after a fatal error.
			if p := recover(); p != nil {
				err = fmt.Errorf("etcd panicked, its data may be damaged: %v", p)
			}
		}()
		etcd, err = nil, errors.New("etcd failed during its start") // if StartEtcd does not return
		etcd, err = embed.StartEtcd(cfg)
	}()
	<-done
	select {
	case cause := <-fatal:
		err = cause
	default:
	}
	if err != nil {
		return nil, fmt.Errorf("start embedded etcd on %s (flag -etcd-embed-listen) with data in %s: %w", s.addr, s.dir, err)
	}
	return etcd, nil
}

// closeEtcd closes etcd and waits for it.
func closeEtcd(etcd *embed.Etcd) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		etcd.Close()
	}()
	select {
	case <-done:
		return nil
	case <-time.After(stopTimeout):
		// etcd waits for a goroutine that a fatal error has ended.
		return fmt.Errorf("stop embedded etcd: not done after %v", stopTimeout)
	}
}
