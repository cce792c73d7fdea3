package udp

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

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

// fastPath is the fast path of a kernel data path. The mutex of kernel guards it.
type fastPath struct {
	*fastpath.Path // nil while there is none
	// reason is why there is none, or why it failed.
	reason string
	stop   context.CancelFunc // ends Run
	ended  chan struct{}      // closed when Run has returned
}

// runFast runs a fast path while the programs are loaded, until ctx ends. A failure
// of it ends no data path.
func (k *kernel) runFast(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.loaded:
		}
		running, stop := context.WithCancel(ctx)
		path, ended := k.openFast(stop)
		if path != nil {
			err := path.Run(running)
			close(ended)
			k.failFast(err)
		}
		stop()
	}
}

// switchOffFast removes the fast path of an earlier run. The caller holds mu, or the
// data path does not run yet.
func (k *kernel) switchOffFast() error {
	k.fast.reason = "switched off by -fastpath"
	return errors.Join(fastpath.Detach(k.path.FastPath), removeFast(k.deviceName()))
}

// openFast loads the fast path. It returns nil if none is to run.
func (k *kernel) openFast(stop context.CancelFunc) (*fastpath.Path, chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.path == nil || k.fast.Path != nil {
		return nil, nil
	}
	k.fast = fastPath{stop: stop, ended: make(chan struct{})}
	pins, err := fastPins(k.deviceName())
	if err == nil {
		k.fast.Path, err = fastpath.New(fastpath.Config{
			Device: k.config.Device, Network: k.Network, Subnet: k.own[inet.IPv4], Marks: fastpath.DefaultMarks, PinDir: pins,
			Encap: k.path.EncapL2, Decap: k.path.FastPath,
		})
	}
	if err != nil {
		k.fast.reason = err.Error()
		log.Warningf("go on without fast path device=%s reason=%q", k.deviceName(), err)
	}
	return k.fast.Path, k.fast.ended
}

// failFast records why Run of the fast path has failed, if it has.
func (k *kernel) failFast(err error) {
	if err == nil {
		return
	}
	log.Errorf("go on without fast path device=%s reason=%q", k.deviceName(), err)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fast.reason = err.Error()
}

// removeFast ends the fast path and removes its programs: it wraps packets by the
// programs that are about to be removed. The caller holds mu.
func (k *kernel) removeFast() error {
	if k.fast.Path != nil {
		k.fast.stop()
		<-k.fast.ended
	}
	err := k.closeFast()
	return errors.Join(err, removeFast(k.deviceName()))
}

// closeFast closes the fast path after its Run has ended. Its programs stay.
func (k *kernel) closeFast() error {
	if k.fast.Path == nil {
		return nil
	}
	err := k.fast.Close()
	k.fast = fastPath{}
	return err
}

// fastStats returns what the status shows of the fast path.
func (k *kernel) fastStats() *backend.FastPath {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &backend.FastPath{LongWay: map[string]uint64{}}
	if k.fast.reason != "" {
		s.Off = append(s.Off, k.fast.reason)
	}
	if k.fast.Path == nil {
		return s
	}
	now := k.fast.Status()
	s.Containers, s.Off = now.Containers, append(s.Off, now.Off...)
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
