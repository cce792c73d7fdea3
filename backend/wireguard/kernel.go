package wireguard

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/rtnl"
)

// kernelTunnel is the kernel's own implementation, which outlives the process.
type kernelTunnel struct {
	client *wgctrl.Client
	device string
}

func openKernel(h *netlink.Handle, device string) (tunnel, error) {
	if err := ensureLink(h, device); err != nil {
		return nil, err
	}
	client, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("open WireGuard's control socket: %w", err)
	}
	return &kernelTunnel{client, device}, nil
}

// ensureLink makes the kernel's device if there is none.
func ensureLink(h *netlink.Handle, device string) error {
	link, err := rtnl.FindLink(h, device)
	switch {
	case err != nil:
		return err
	case link != nil && link.Type() != Type:
		return fmt.Errorf("interface %s exists and is of type %s, not %s: delete or rename it", device, link.Type(), Type)
	case link != nil:
		return nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = device
	err = h.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
	// The kernel does not know the kind of device (net/core/rtnetlink.c, rtnl_newlink).
	if errors.Is(err, unix.EOPNOTSUPP) {
		return errNoKernel
	}
	if err != nil {
		return fmt.Errorf("add device %s: %w", device, netdev.ExplainPermission(err))
	}
	return nil
}

// removeLink deletes the kernel's device of an earlier run, whose name the device of
// user space needs.
func removeLink(h *netlink.Handle, device string) error {
	link, err := rtnl.FindLink(h, device)
	if link == nil || link.Type() != Type {
		return err
	}
	if err := h.LinkDel(link); err != nil {
		return fmt.Errorf("delete the kernel's device %s: %w", device, err)
	}
	return nil
}

func (k *kernelTunnel) configure(c wgtypes.Config) error {
	return k.client.ConfigureDevice(k.device, c)
}

func (k *kernelTunnel) peers() ([]wgtypes.Peer, error) {
	d, err := k.client.Device(k.device)
	if err != nil {
		return nil, err
	}
	return d.Peers, nil
}

// initiate turns keepalives on and back to what they were. The kernel sends the
// first one at once, with a handshake if there is no session (set_peer in
// drivers/net/wireguard/netlink.c).
func (k *kernelTunnel) initiate(peers []wgtypes.Peer, _ bool) error {
	if len(peers) == 0 {
		return nil
	}
	off, on := time.Duration(0), time.Second
	for _, step := range []*time.Duration{&off, &on, nil} {
		var c wgtypes.Config
		for _, p := range peers {
			keepalive := cmp.Or(step, &p.PersistentKeepaliveInterval)
			c.Peers = append(c.Peers, wgtypes.PeerConfig{PublicKey: p.PublicKey, UpdateOnly: true, PersistentKeepaliveInterval: keepalive})
		}
		if err := k.configure(c); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the control socket.
func (k *kernelTunnel) Close() error { return k.client.Close() }
