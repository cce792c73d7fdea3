package wireguard

import (
	"errors"
	"fmt"
	"io"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// tunnel is one implementation of WireGuard at work behind the device.
type tunnel interface {
	// configure changes what c names and leaves the rest.
	configure(c wgtypes.Config) error
	// peers are those that it has.
	peers() ([]wgtypes.Peer, error)
	// begin begins a session with each of these peers. WireGuard does so once in
	// five seconds (REKEY_TIMEOUT); again has it done even so, if the
	// implementation can.
	begin(peers []wgtypes.Peer, again bool) error
	// Close ends what cannot go on without this process.
	io.Closer
}

// errNoKernel: the kernel has no WireGuard.
var errNoKernel = errors.New("the kernel has no WireGuard")

// openTunnel makes the device by the best implementation there is, and says
// which it is and why.
func openTunnel(h *netlink.Handle, datapath string, mtu int) (t tunnel, name, reason string, err error) {
	reason = "named by Backend.Datapath"
	if datapath != userspace {
		if t, err = openKernel(h); err == nil {
			if datapath == auto {
				reason = "the kernel has WireGuard"
			}
			return t, kernel, reason, nil
		}
		if datapath == kernel || !errors.Is(err, errNoKernel) {
			return nil, "", "", err
		}
		reason = errNoKernel.Error()
	}
	t, err = openUserspace(mtu)
	return t, userspace, reason, err
}

// ensureLink makes the kernel's device unless there is one.
func ensureLink(h *netlink.Handle) error {
	link, err := h.LinkByName(deviceName)
	switch {
	case err == nil && link.Type() != "wireguard":
		return fmt.Errorf("interface %s exists and is of type %s, not wireguard: delete or rename it", deviceName, link.Type())
	case err == nil:
		return nil
	case !errors.As(err, new(netlink.LinkNotFoundError)):
		return fmt.Errorf("look up device %s: %w", deviceName, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = deviceName
	err = h.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
	// An unknown kind of device (net/core/rtnetlink.c, rtnl_newlink).
	if errors.Is(err, unix.EOPNOTSUPP) {
		return errNoKernel
	}
	if err != nil {
		return fmt.Errorf("add device %s: %w", deviceName, err)
	}
	return nil
}
