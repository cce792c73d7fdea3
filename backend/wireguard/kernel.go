package wireguard

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// kernelTunnel is the kernel's own implementation, which goes on without us.
type kernelTunnel struct{ client *wgctrl.Client }

func openKernel(h *netlink.Handle) (tunnel, error) {
	if err := ensureLink(h); err != nil {
		return nil, err
	}
	client, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("open WireGuard's control socket: %w", err)
	}
	return &kernelTunnel{client}, nil
}

func (k *kernelTunnel) configure(c wgtypes.Config) error {
	return k.client.ConfigureDevice(deviceName, c)
}

func (k *kernelTunnel) peers() ([]wgtypes.Peer, error) {
	d, err := k.client.Device(deviceName)
	if err != nil {
		return nil, err
	}
	return d.Peers, nil
}

func (k *kernelTunnel) Close() error { return k.client.Close() }
