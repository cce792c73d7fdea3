package wireguard

import (
	"errors"
	"fmt"
	"io"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/pkg/uplink"
)

// tunnel is the device in one implementation of WireGuard.
type tunnel interface {
	// configure changes what c sets and leaves the rest.
	configure(c wgtypes.Config) error
	// peers returns the configured peers.
	peers() ([]wgtypes.Peer, error)
	// initiate starts a handshake with each of peers. WireGuard limits this to one
	// in 5 s (REKEY_TIMEOUT); force overrides the limit where the implementation can.
	initiate(peers []wgtypes.Peer, force bool) error
	// Close ends what cannot go on without this process.
	io.Closer
}

// errNoKernel is the error of a kernel without WireGuard.
var errNoKernel = errors.New(`the kernel has no WireGuard; load it with "modprobe wireguard"`)

// vrfReason is why the kernel's WireGuard is of no use at an uplink in a VRF.
func vrfReason(up uplink.Uplink) string {
	return fmt.Sprintf("interface %s belongs to VRF %s, by whose routes the kernel's WireGuard does not send", up.Name, up.VRF)
}

// openTunnel makes the device by the best available implementation, and returns
// the implementation's name and the reason for the choice. The kernel's sends by
// the routes of no VRF, and receives only what is sent to addresses of none.
func openTunnel(h *netlink.Handle, e end, dataPath string, mtu int) (t tunnel, name, reason string, err error) {
	up := e.uplink
	reason = "named by Backend.Datapath"
	if up.VRF != "" {
		reason = vrfReason(up)
	} else if dataPath != userspace {
		if t, err = openKernel(h, e.device); err == nil {
			if dataPath == auto {
				reason = "the kernel has WireGuard"
			}
			return t, kernel, reason, nil
		}
		if dataPath == kernel && errors.Is(err, errNoKernel) {
			return nil, "", "", fmt.Errorf("Backend.Datapath is %s: %w, or choose %s", kernel, err, userspace)
		}
		if !errors.Is(err, errNoKernel) {
			return nil, "", "", err
		}
		reason = errNoKernel.Error()
	}
	if err := removeLink(h, e.device); err != nil {
		return nil, "", "", err
	}
	t, err = openUserspace(e, mtu)
	return t, userspace, reason, err
}
