package daemon

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/probe"
	"github.com/coreos/flannel/pkg/uplink"
)

// A network stays open while a report reads it.
func TestNetworkStaysForItsReaders(t *testing.T) {
	s := new(state)
	s.update(func(s *progress) {
		s.network, s.probers[inet.IPv6], s.sides[inet.IPv4].uplink = &fakeNetwork{}, new(probe.Prober), uplink.Uplink{Name: "eth0"}
	})
	reading, release := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	go s.read(func(now progress) {
		close(reading)
		<-release
		if now.network == nil {
			t.Error("no network")
		}
		ended.Store(true)
	})
	<-reading
	removed := make(chan struct{})
	go func() {
		defer close(removed)
		s.removeNetwork()
		if !ended.Load() {
			t.Error("the network is removed under its reader")
		}
	}()
	for waiting := false; !waiting; { // until removeNetwork waits for the lock, or has ended
		select {
		case <-removed:
			waiting = true
		default:
			if waiting = !s.reading.TryRLock(); !waiting {
				s.reading.RUnlock()
				runtime.Gosched()
			}
		}
	}
	close(release)
	<-removed
	if now := s.get(); now.network != nil || now.probers[inet.IPv6] != nil || now.sides[inet.IPv4].uplink.Name != "eth0" {
		t.Errorf("the state is %+v", now)
	}
}
