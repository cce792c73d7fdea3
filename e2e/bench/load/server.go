package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/inet"
)

// startTimeout bounds the start of a server. spareTime is how much longer than its
// seconds a client may run.
const (
	startTimeout = 10 * time.Second
	spareTime    = 20 * time.Second
)

// server is a load generator's receiving program.
type server struct {
	stop context.CancelFunc
	done chan struct{} // closed when the program has ended
	out  bytes.Buffer  // complete when done is closed
}

// serve starts a program at an end and waits until it listens on port.
func serve(ctx context.Context, at End, network string, port uint16, name string, args ...string) (*server, error) {
	ctx, stop := context.WithCancel(ctx)
	s := &server{stop: stop, done: make(chan struct{})}
	cmd := at.Command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &s.out, &s.out
	if err := cmd.Start(); err != nil {
		stop()
		return nil, fmt.Errorf("start %s: %w", title(name), err)
	}
	go func() {
		defer close(s.done)
		_ = cmd.Wait() // it is killed, or the client reports it
	}()
	if err := s.awaitListening(ctx, at, network, port); err != nil {
		s.close()
		return nil, fmt.Errorf("start %s: %w: %s", title(name), err, strings.TrimSpace(s.out.String()))
	}
	return s, nil
}

// close ends the program.
func (s *server) close() {
	s.stop()
	<-s.done
}

func (s *server) awaitListening(ctx context.Context, at End, network string, port uint16) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		if ok, err := listening(at, network, port); ok || err != nil {
			return err
		}
		select {
		case <-poll.C:
		case <-s.done:
			return errors.New("it ended")
		case <-ctx.Done():
			return fmt.Errorf("it does not listen on port %d: %w", port, ctx.Err())
		}
	}
}

// States of a socket (include/net/tcp_states.h). A UDP socket without a peer is in
// state "close".
const (
	stateClose  = 7
	stateListen = 10
)

// listening reports whether an end's host has a server on port.
func listening(at End, network string, port uint16) (found bool, err error) {
	list, state := netlink.SocketDiagTCP, uint8(stateListen)
	if network == "udp" {
		list, state = netlink.SocketDiagUDP, stateClose
	}
	err = at.Do(func() error {
		sockets, err := list(uint8(inet.Of(at.Addr).AF()))
		for _, s := range sockets {
			found = found || s.ID.SourcePort == port && s.State == state
		}
		return err
	})
	return found, err
}

// client runs a program at an end for seconds, and returns its output.
func client(ctx context.Context, at End, seconds int, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+spareTime)
	defer cancel()
	out, err := at.Command(ctx, name, args...).CombinedOutput()
	if err == nil {
		return out, nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) || ctx.Err() != nil {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil, fmt.Errorf("run %s: %w", title(name), err)
}

// title returns a program's name for errors.
func title(program string) string {
	if program == executable {
		return "load program"
	}
	return program
}
