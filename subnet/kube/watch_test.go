package kube

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest/kubeapi"
)

// watching is an API server whose Nodes a Manager watches: ours, and those of peers.
type watching struct {
	*testing.T
	server   *kubeapi.Server
	store    *Store
	requests *atomic.Int64
	manager  *subnet.Manager
	peers    func() []string // their subnets as they are now
}

// watchPeers runs the Manager's Watch until it has the peers 1, 2 and 3.
func watchPeers(t *testing.T) *watching {
	t.Helper()
	w := watchNetwork(t, netConf1, "10.5.200.0/24")
	put(t, w.server, 1, 2, 3)
	eventually(t, "three peers", func() bool { return len(w.peers()) == 3 })
	return w
}

// watchNetwork runs the Manager's Watch for a configuration and our podCIDRs. There is no
// peer yet.
func watchNetwork(t *testing.T, config string, podCIDRs ...string) *watching {
	t.Helper()
	w := &watching{T: t, server: kubeapi.Start(t)}
	w.server.PutNode(self, nil, podCIDRs...)
	w.store, w.requests = open(t, w.server)
	h := holderOf(t, w.store, config)
	l := acquire(t, h)
	w.manager = subnet.NewManager(w.store, h, h.config, subnet.Timing{})
	w.manager.Adopt(l)
	known := make(map[string]bool)
	changes := make(chan []subnet.Event)
	ended := make(chan struct{})
	ctx := t.Context()
	go func() {
		defer close(ended)
		if err := w.manager.Watch(ctx, l, func(e []subnet.Event) { changes <- e }); err != nil {
			t.Errorf("Watch: %v", err)
		}
	}()
	t.Cleanup(func() {
		for {
			select {
			case <-changes:
			case <-ended:
				return
			}
		}
	})
	w.peers = func() []string {
		select {
		case events := <-changes:
			for _, e := range events {
				if e.Type == subnet.Added {
					known[e.Subnet().String()] = true
				} else {
					delete(known, e.Subnet().String())
				}
			}
		case <-time.After(10 * time.Millisecond):
		}
		var all []string
		for p := range known {
			all = append(all, p)
		}
		slices.Sort(all)
		return all
	}
	return w
}

// have waits until the peers have the subnets.
func (w *watching) have(what string, subnets ...string) {
	w.Helper()
	eventually(w.T, what, func() bool { return slices.Equal(w.peers(), subnets) })
}

// cutOff makes the API server refuse the Manager, until Refuse(0).
func (w *watching) cutOff() {
	w.Helper()
	w.server.Refuse(503)
	w.server.Break()
	eventually(w.T, "the store away", func() bool { w.peers(); return w.manager.Status().StoreError != nil })
}

func peer(n byte) subnet.Lease {
	l := subnet.Lease{Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, n, 0}), 24), Attrs: attrs()}
	l.Attrs.PublicIP = netip.AddrFrom4([4]byte{192, 0, 2, 100 + n})
	return l
}

// put creates or changes the Nodes of peers.
func put(t *testing.T, s *kubeapi.Server, numbers ...byte) {
	t.Helper()
	for _, n := range numbers {
		l := peer(n)
		s.PutNode(nodeOf(l), published(t, l), l.Subnet.String())
	}
}

func lists(s *kubeapi.Server) (n int) {
	for _, r := range s.Requests() {
		if strings.Contains(r, "sendInitialEvents") {
			n++
		}
	}
	return n
}

// A watch that breaks goes on without another list, and misses nothing.
func TestBrokenWatchResumes(t *testing.T) {
	w := watchPeers(t)
	s := w.server
	before := lists(s)
	for range 3 {
		w.cutOff()
		s.DeleteNode(nodeOf(peer(2)))
		put(t, s, 4)
		s.Refuse(0)
		w.have("the change", "10.5.1.0/24", "10.5.3.0/24", "10.5.4.0/24")
		put(t, s, 2)
		s.DeleteNode(nodeOf(peer(4)))
		w.have("the change back", "10.5.1.0/24", "10.5.2.0/24", "10.5.3.0/24")
	}
	if n := lists(s) - before; n != 0 {
		t.Errorf("%d more lists", n)
	}
}

// If the API server has forgotten the version, a list gives the difference.
func TestForgottenVersion(t *testing.T) {
	w := watchPeers(t)
	s := w.server
	w.cutOff()
	s.DeleteNode(nodeOf(peer(2)))
	put(t, s, 4)
	s.Forget()
	s.Refuse(0)
	w.have("the difference", "10.5.1.0/24", "10.5.3.0/24", "10.5.4.0/24")
}

// A Node that loses its annotations is no peer any more.
func TestAnnotationsRemoved(t *testing.T) {
	w := watchPeers(t)
	w.server.PutNode(nodeOf(peer(2)), nil, peer(2).Subnet.String())
	w.have("two peers", "10.5.1.0/24", "10.5.3.0/24")
}

// A peer that loses only its data stays as it was until it writes them again.
func TestLostDataIsNoChange(t *testing.T) {
	w := watchPeers(t)
	lost := published(t, peer(2))
	delete(lost, names.prefix+suffixData[inet.IPv4])
	bad := w.store.BadCount()
	w.server.PutNode(nodeOf(peer(2)), lost, peer(2).Subnet.String())
	put(t, w.server, 4) // arrives after it
	w.have("four peers", "10.5.1.0/24", "10.5.2.0/24", "10.5.3.0/24", "10.5.4.0/24")
	if n := w.store.BadCount() - bad; n != 1 {
		t.Errorf("%d bad records, want 1", n)
	}
}

// Annotations of our own that another party damages are written again at once.
func TestDamagedOwnAnnotations(t *testing.T) {
	w := watchPeers(t)
	s, m := w.server, w.manager
	ctx, cancel := context.WithCancel(t.Context())
	renewed := make(chan error, 1)
	go func() { renewed <- m.Renew(ctx, m.Status().Lease) }()
	defer func() {
		cancel()
		<-renewed
	}()
	want := s.Annotations(self)
	for suffix, damage := range map[string]string{suffixData[inet.IPv4]: "{", suffixPublicIP[inet.IPv4]: "x", suffixManaged: "false"} {
		damaged := s.Annotations(self)
		damaged[names.prefix+suffix] = damage
		s.PutNode(self, damaged, "10.5.200.0/24")
		eventually(t, "the annotation "+suffix, func() bool {
			w.peers()
			return s.Annotations(self)[names.prefix+suffix] == want[names.prefix+suffix]
		})
	}
}

// A change that is no change of a lease, as a kubelet makes it every few minutes,
// gives no event to the data plane.
func TestHeartbeatIsNoChange(t *testing.T) {
	w := watchPeers(t)
	eventually(t, "the watch", func() bool {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		return w.store.watches > 0
	})
	before := w.requests.Load()
	for range 50 {
		put(t, w.server, 1, 2, 3)
	}
	put(t, w.server, 4) // arrives after them
	eventually(t, "four peers", func() bool { return len(w.peers()) == 4 })
	if n := w.requests.Load() - before; n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestListFallsBackToPages(t *testing.T) {
	for name, old := range map[string]func(*kubeapi.Server){
		"old API server": func(s *kubeapi.Server) { s.NoInitialEvents = true },
		"old etcd":       func(s *kubeapi.Server) { s.NoProgress = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := kubeapi.Start(t)
			old(s)
			s.PageSize = 3
			s.PutNode(self, nil, "10.5.200.0/24")
			put(t, s, 1, 2, 3, 4, 5, 6, 7)
			k, _ := open(t, s)
			leases, at, err := k.List(t.Context())
			if err != nil || len(leases) != 7 || at.Rev == 0 {
				t.Fatalf("List = %v at %v, %v", leases, at, err)
			}
			pages := 0
			for _, r := range s.Requests() {
				if strings.Contains(r, "limit=500") {
					pages++
				}
			}
			if pages != 3 {
				t.Errorf("%d pages, want 3: %q", pages, s.Requests())
			}
		})
	}
}

// A refusal is no empty list, and its error has the remedy.
func TestRefusals(t *testing.T) {
	for code, want := range map[int]string{401: "token or certificate is not valid", 403: "ClusterRole flannel", 500: "500"} {
		s := kubeapi.Start(t)
		put(t, s, 1)
		k, _ := open(t, s)
		s.Refuse(code)
		leases, _, err := k.List(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || subnet.IsAnswer(err) {
			t.Errorf("%d: List = %v, %v; want an error with %q", code, leases, err, want)
		}
	}
}

// A version of the future is one of another history, as after a restore of etcd.
func TestFutureVersion(t *testing.T) {
	s := kubeapi.Start(t)
	k, _ := open(t, s)
	err := k.Watch(t.Context(), subnet.Position{Rev: 1 << 40}, func(subnet.Rev, []subnet.Event) {})
	if !errors.Is(err, subnet.ErrCompacted) {
		t.Errorf("Watch = %v, want %v", err, subnet.ErrCompacted)
	}
}
