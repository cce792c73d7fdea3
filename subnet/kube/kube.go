// Package kube is the store of leases in a Kubernetes cluster: each Node object is
// a host's lease. The node's podCIDR, which kube-controller-manager assigns, is the
// subnet; annotations hold the attributes. They are those of every flannel that
// runs with -kube-subnet-mgr, so hosts of both programs form one network.
//
//	            GET, PATCH nodes/NAME/status           list, watch nodes
//	Holder ─────────────────────────► API server ◄───────── Store
//	                                   Node n1: podCIDR, annotations
//
// The list is a watch with initial events, else pages. A watch decodes names,
// annotations and podCIDRs; the rest of a Node is skipped. Lists and watches are in
// protobuf, and all else in JSON. client-go provides the
// HTTP client, with its kubeconfig, certificates and tokens that are read again. It
// does not provide the cache: a Source has the form of its reflector, and the
// Manager above it has the retries and the one copy of all leases.
package kube

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/coreos/flannel/subnet"
)

const (
	// answerLimit bounds the time until the API server's answer begins, and the
	// pauses within an answer, for a request of one object.
	answerLimit = 5 * time.Second
	// watchLimit bounds the pauses of a watch. The API server sends a bookmark each
	// minute (k8s.io/apiserver, storage/cacher).
	watchLimit = 150 * time.Second
)

// Config is how a Store reaches its cluster.
type Config struct {
	// URL and Kubeconfig select the API server and the credentials. Both empty: those
	// of the pod that this program runs in.
	URL, Kubeconfig string
	// NetConfig is the file with the network configuration.
	NetConfig string
	// Annotations are the names of the annotations.
	Annotations Annotations
	// Self names this host's Node. The zero Self is for a Store that only reads.
	Self Self

	// For tests: Dial replaces the network of the process, Observe is called with each
	// request before it is sent. Both may be nil.
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
	Observe func(*http.Request)
}

// Store is a subnet.Source over the Nodes of a cluster. It connects with the first call.
type Store struct {
	config Config
	// answer and silence replace answerLimit and watchLimit in tests.
	answer, silence time.Duration
	bad             subnet.BadData

	closing chan struct{} // closed by Close
	close   sync.Once

	mu sync.Mutex // guards what follows
	// connected is nil before the first call, and after a refusal of its credentials.
	connected *client
	name      string // of our Node; "" before it is known
	own       own
	watches   int // that the API server has accepted
	// read is our Node as it was read last; nil before.
	read *node
	// overwritten is the last effect of the annotation public-ip-overwrite, by family.
	overwritten [2]struct{ from, to netip.Addr }
}

// own is our Node as the watch saw it last.
type own struct {
	known bool  // the list or the watch has said whether it exists
	node  *node // nil: it does not exist
}

// New returns a Store. It uses neither network nor files.
func New(c Config) *Store {
	return &Store{config: c, answer: answerLimit, silence: watchLimit, name: c.Self.Node, closing: make(chan struct{})}
}

// BadCount implements subnet.Source.
func (s *Store) BadCount() uint64 { return s.bad.Count() }

// Close implements subnet.Source.
func (s *Store) Close() error {
	s.close.Do(func() { close(s.closing) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connected != nil {
		s.connected.close()
		s.connected = nil
	}
	return nil
}

// usable returns why no call can succeed any more; nil if one can.
func (s *Store) usable(ctx context.Context) error {
	if s.isClosed() {
		return subnet.ErrClosed
	}
	return ctx.Err()
}

func (s *Store) isClosed() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// client returns the client, and makes it if there is none. A token or a CA file
// that is missing now may come later.
func (s *Store) client() (*client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed() {
		return nil, subnet.ErrClosed
	}
	if s.connected == nil {
		c, err := newClient(s.config, s.answer)
		if err != nil {
			return nil, err
		}
		s.connected = c
	}
	return s.connected, nil
}

// do runs one call. It ends with ctx or Close, and returns the reason then.
func (s *Store) do(ctx context.Context, call func(context.Context, *client) error) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	limited, cancel := context.WithCancel(ctx)
	var closer sync.WaitGroup
	defer closer.Wait()
	defer cancel()
	closer.Go(func() {
		select {
		case <-s.closing:
			cancel()
		case <-limited.Done():
		}
	})
	err = call(limited, c)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case s.isClosed():
		return subnet.ErrClosed
	case isUntrusted(err) || hasCode(err, http.StatusUnauthorized):
		s.forget(c) // the files of CA and token may have another content now
	}
	return err
}

// forget makes the next call connect anew.
func (s *Store) forget(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connected == c {
		s.connected = nil
		c.close()
	}
}

// errNoNode: our Node object does not exist.
var errNoNode = fmt.Errorf("the Node object does not exist, the kubelet of this host creates it when it registers: %w", subnet.ErrUnassigned)
