package udp

import (
	"fmt"
	"path/filepath"

	"github.com/coreos/flannel/backend/fastpath"
	"github.com/coreos/flannel/backend/udp/bpf"
	"github.com/coreos/flannel/pkg/inet"
)

// fastPins is the directory of the fast path's pins, below that of the programs.
func fastPins(pins string) string { return filepath.Join(pins, "fastpath") }

// openFast opens the fast path, which serves containers while the programs are loaded.
func (k *kernel) openFast() {
	k.fast = fastpath.OpenOptional(k.FastPath, fastpath.Config{
		Name: k.deviceName(), Device: k.config.Device, Network: k.Network, Subnet: k.own[inet.IPv4],
		Marks: fastpath.MarksOf(k.FastPathMark), PinDir: fastPins(k.config.PinDir),
	})
}

// joinFast has the fast path use the programs that were loaded.
func (k *kernel) joinFast() error {
	return k.fast.Join(fastpath.Tunnel{Encap: k.path.EncapL2, Decap: k.path.FastPath})
}

// removeFast removes what an earlier run has left for a device.
func removeFast(device string) error {
	pins, err := bpf.PinDir(device)
	if err == nil {
		err = fastpath.Remove(fastPins(pins), device)
	}
	if err != nil {
		return fmt.Errorf("remove fast path of %s: %w", device, err)
	}
	return nil
}
