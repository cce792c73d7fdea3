package udp

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/fastpath"
	"github.com/coreos/flannel/backend/udp/bpf"
	"github.com/coreos/flannel/pkg/ratelog"
)

// fastPins is the directory of the fast path's pins for a device.
func fastPins(device string) (string, error) {
	pins, err := bpf.PinDir(device)
	return filepath.Join(pins, "fastpath"), err
}

// openFast loads the fast path between containers and the tunnel device. The
// data path works without it.
func (k *kernel) openFast(device netlink.Link, p *pathConfig) {
	name := device.Attrs().Name
	pins, err := fastPins(name)
	if err == nil && p.FastPath == backend.FastPathOff {
		k.fastReason = "switched off by -fastpath"
		err = errors.Join(fastpath.Detach(k.path.FastPath), fastpath.Remove(pins, name))
	} else if err == nil {
		k.fast, err = fastpath.New(fastpath.Config{
			Device: device.Attrs().Index, Network: p.Network, Subnet: p.own, Marks: fastpath.DefaultMarks, PinDir: pins,
			Encap: k.path.EncapL2, Decap: k.path.FastPath,
		})
	}
	if err != nil {
		k.fastReason = err.Error()
		log.Warningf("go on without fast path device=%s reason=%q", name, err)
	}
}

// runFast keeps the fast path up to date. A failure of it ends no data path.
func (k *kernel) runFast(ctx context.Context) error {
	if k.fast == nil {
		return nil
	}
	if err := k.fast.Run(ctx); err != nil {
		log.Errorf("go on without fast path device=%s reason=%q", k.deviceName(), err)
		k.mu.Lock()
		k.fastReason = err.Error()
		k.mu.Unlock()
	}
	return nil
}

// fastStats returns what the status shows of the fast path.
func (k *kernel) fastStats() *backend.FastPath {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &backend.FastPath{LongWay: map[string]uint64{}}
	if k.fastReason != "" {
		s.Off = append(s.Off, k.fastReason)
	}
	if k.fast == nil {
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
