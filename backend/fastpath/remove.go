package fastpath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/pinned"
)

// Remove detaches the fast path that is pinned at dir, and removes the pins and
// the table of its Config.Name. It is no error if nothing is there. It runs in the
// network namespace of the device.
func Remove(dir, name string) error {
	tc, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("remove fast path: open route netlink: %w", err)
	}
	defer tc.Close()
	p := &programs{config: Config{PinDir: dir}, tc: tc}
	hooks, err := p.hooks()
	if err != nil {
		return err
	}
	for _, h := range hooks {
		if err := p.detach(h); err != nil {
			return fmt.Errorf("remove fast path: %w", err)
		}
	}
	if err := pinned.Remove(dir); err != nil {
		return fmt.Errorf("remove fast path: %w", err)
	}
	return unmark(name)
}

// Detach removes a fast path from [Tunnel].Decap.
func Detach(decap *ebpf.Map) error {
	if decap == nil {
		return nil
	}
	if err := decap.Delete(uint32(0)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("detach fast path from the tunnel's program: %w", err)
	}
	return nil
}
