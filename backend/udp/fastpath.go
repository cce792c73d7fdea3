package udp

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/fastpath"
	"github.com/coreos/flannel/backend/udp/bpf"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/ratelog"
)

// fastPins is the directory of the fast path's pins for a device.
func fastPins(device string) (string, error) {
	pins, err := bpf.PinDir(device)
	return filepath.Join(pins, "fastpath"), err
}

// fastPath is the fast path of a kernel data path: it serves containers while the
// programs of that are loaded.
type fastPath struct {
	*fastpath.Path // nil if there is none

	mu     sync.Mutex // guards reason
	reason string     // why there is none, or why it has failed
}

// openFast opens the fast path. A failure of it ends no data path.
func (k *kernel) openFast() {
	if k.FastPath != backend.FastPathAuto {
		k.fast.reason = "switched off by -fastpath"
		return
	}
	if !k.own[inet.IPv4].IsValid() {
		k.fast.reason = "it takes packets of IPv4"
		return
	}
	pins, err := fastPins(k.deviceName())
	if err == nil {
		k.fast.Path, err = fastpath.New(fastpath.Config{
			Device: k.config.Device, Network: k.Network, Subnet: k.own[inet.IPv4], Marks: fastpath.MarksOf(k.FastPathMark), PinDir: pins,
		})
	}
	if err != nil {
		k.fast.reason = err.Error()
		log.Infof("go on without fast path device=%s reason=%q", k.deviceName(), err)
	}
}

// joinFast has the fast path use the programs that were loaded, or removes what an
// earlier run has left of one.
func (k *kernel) joinFast() error {
	if k.fast.Path == nil {
		return errors.Join(fastpath.Detach(k.path.FastPath), removeFast(k.deviceName()))
	}
	return k.fast.Join(fastpath.Tunnel{Encap: k.path.EncapL2, Decap: k.path.FastPath})
}

// runFast runs the fast path until ctx ends.
func (k *kernel) runFast(ctx context.Context) {
	if k.fast.Path == nil {
		return
	}
	if err := k.fast.Run(ctx); err != nil {
		k.failFast(err)
	}
}

// failFast records why there is no fast path.
func (k *kernel) failFast(err error) {
	log.Errorf("go on without fast path device=%s reason=%q", k.deviceName(), err)
	k.fast.mu.Lock()
	defer k.fast.mu.Unlock()
	k.fast.reason = err.Error()
}

// suspend ends the fast path before the programs that it calls.
func (f *fastPath) suspend() error {
	if f.Path == nil {
		return nil
	}
	return f.Suspend()
}

// close closes the fast path after runFast. Its programs stay.
func (f *fastPath) close() error {
	if f.Path == nil {
		return nil
	}
	return f.Close()
}

// fastStats returns what the status shows of the fast path.
func (k *kernel) fastStats() *backend.FastPath {
	s := &backend.FastPath{LongWay: map[string]uint64{}}
	k.fast.mu.Lock()
	if k.fast.reason != "" {
		s.Off = append(s.Off, k.fast.reason)
	}
	k.fast.mu.Unlock()
	if k.fast.Path == nil {
		return s
	}
	now := k.fast.Status()
	s.Containers, s.Off, s.Cut = now.Containers, append(s.Off, now.Off...), now.Cut
	counts, err := k.fast.Stats()
	if err != nil {
		ratelog.Errorf("read counters of fast path device=%s reason=%q", k.deviceName(), err)
		return s
	}
	s.TxPackets, s.RxPackets = counts.Sent.Packets, counts.Received.Packets
	for reason, n := range counts.LongWay {
		s.LongWay[reason] = n.Packets
	}
	return s
}

// removeFast removes what an earlier run has left for a device.
func removeFast(device string) error {
	pins, err := fastPins(device)
	if err == nil {
		err = fastpath.Remove(pins, device)
	}
	if err != nil {
		return fmt.Errorf("remove fast path of %s: %w", device, err)
	}
	return nil
}
