package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// half is a Network that records the calls of one family.
type half struct {
	Network
	mtu     int
	path    string
	applied []string
	err     error
}

func (h *half) MTU() int         { return h.mtu }
func (h *half) DataPath() string { return h.path }
func (h *half) Check() error     { return h.err }
func (h *half) Close() error     { return h.err }

// Encapsulation is none before the half is up.
func (h *half) Encapsulation() Encapsulation {
	if h.path == "" {
		return Unencapsulated
	}
	return WholeByKernel
}

func (h *half) Apply(events []subnet.Event) {
	h.applied = append(h.applied, fmt.Sprint(len(events)))
	for _, e := range events {
		h.applied = append(h.applied, e.Family.String())
	}
}

func (h *half) Run(ctx context.Context) error {
	if h.err != nil {
		return h.err
	}
	<-ctx.Done()
	return nil
}

func (h *half) Stats() Stats {
	s := Stats{DataPath: h.path, Peers: []PeerStats{{TxPackets: uint64(h.mtu)}}}
	if h.path != "" {
		s.Reason = fmt.Sprint("MTU ", h.mtu)
	}
	return s
}

// Each part gets its own events, and none as well; what is asked of both is the sum.
func TestJoin(t *testing.T) {
	failed := errors.New("failed")
	v4, v6 := &half{mtu: 1450, path: "half"}, &half{mtu: 1430, path: "half"}
	n := Join(map[inet.Family]Network{inet.IPv6: v6, inet.IPv4: v4})
	if other := Join(map[inet.Family]Network{inet.IPv4: v4}); n == other { // the daemon compares them
		t.Error("two networks are equal")
	}
	n.Apply([]subnet.Event{{Family: inet.IPv6}, {Family: inet.IPv4}, {Family: inet.IPv6}})
	n.Apply(nil)
	if got := fmt.Sprint(v4.applied, v6.applied); got != "[1 IPv4 0] [2 IPv6 IPv6 0]" {
		t.Errorf("applied %s", got)
	}
	s := n.Stats()
	if n.MTU() != 1430 || n.DataPath() != "half" || n.Encapsulation() != WholeByKernel || len(s.Peers) != 2 || s.Peers[1].TxPackets != 1430 || s.Reason != "MTU 1450; MTU 1430" {
		t.Errorf("MTU %d, data path %s, %+v", n.MTU(), n.DataPath(), s)
	}
	for _, down := range []*half{v4, v6} {
		down.path = ""
		if s := n.Stats(); n.DataPath() != "half" || n.Encapsulation() != WholeByKernel || s.DataPath != "half" || strings.Contains(s.Reason, ";") || s.Reason == "" {
			t.Errorf("with one part: data path %s, %+v", n.DataPath(), s)
		}
		down.path = "half"
	}
	if n.Check() != nil || n.Close() != nil {
		t.Error("an error of none")
	}
	v6.err = failed
	if !errors.Is(n.Check(), failed) || !errors.Is(n.Close(), failed) || !errors.Is(n.Run(t.Context()), failed) {
		t.Error("an error of one is lost")
	}
}

func TestAllFailed(t *testing.T) {
	one, other := errors.New("one"), errors.New("other")
	if err := AllFailed([]error{one, nil}); err != nil {
		t.Errorf("one of two: %v", err)
	}
	if err := AllFailed([]error{one, other}); !errors.Is(err, one) || !errors.Is(err, other) {
		t.Errorf("both: %v", err)
	}
	if err := AllFailed([]error{nil}); err != nil {
		t.Errorf("none: %v", err)
	}
}
