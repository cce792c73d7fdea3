package wireguard

import (
	"fmt"
	"runtime"

	log "github.com/golang/glog"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/pkg/ratelog"
)

// userspaceTunnel is wireguard-go inside our process, between a TUN device that
// goes with it and a bind.
type userspaceTunnel struct{ device *device.Device }

// openUserspace starts the implementation's workers; Close waits for them. No
// packet moves before it has peers.
func openUserspace(mtu int) (tunnel, error) {
	t, err := tun.CreateTUN(deviceName, mtu)
	if err != nil {
		return nil, fmt.Errorf("open tunnel device %s: %w; it needs /dev/net/tun and CAP_NET_ADMIN", deviceName, err)
	}
	return &userspaceTunnel{device.NewDevice(polite{t}, new(bind), &device.Logger{
		Verbosef: func(format string, args ...any) {
			if log.V(3) {
				log.Infof("wireguard: "+format, args...)
			}
		},
		Errorf: func(format string, args ...any) { ratelog.Warningf("wireguard: "+format, args...) },
	})}, nil
}

// polite is a TUN device whose reader lets go of the processor before it reads
// on. What it has read is encrypted and sent meanwhile, while it is in the cache;
// else thousands of packets queue up behind it, with 64 KiB of memory each.
type polite struct{ tun.Device }

// Read implements tun.Device.
func (p polite) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	runtime.Gosched()
	return p.Device.Read(bufs, sizes, offset)
}

func (u *userspaceTunnel) configure(c wgtypes.Config) error {
	if err := u.device.IpcSet(encode(c)); err != nil {
		return err
	}
	// Here rather than when the interface comes up, so that a port that is
	// taken is an error.
	return u.device.Up()
}

func (u *userspaceTunnel) peers() ([]wgtypes.Peer, error) {
	state, err := u.device.IpcGet()
	if err != nil {
		return nil, err
	}
	return decodePeers(state)
}

func (u *userspaceTunnel) begin(peers []wgtypes.Peer, again bool) error {
	for _, p := range peers {
		peer := u.device.LookupPeer(device.NoisePublicKey(p.PublicKey))
		if peer == nil {
			continue // it has just been removed
		}
		if again {
			peer.ExpireCurrentKeypairs()
		}
		_ = peer.SendHandshakeInitiation(false) // it logs that itself
	}
	return nil
}

func (u *userspaceTunnel) Close() error {
	u.device.Close()
	<-u.device.Wait()
	return nil
}
