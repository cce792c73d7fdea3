package wireguard

import (
	"cmp"
	"fmt"
	"runtime"

	log "github.com/golang/glog"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/ratelog"
	flanneltun "github.com/coreos/flannel/pkg/tun"
)

// userspaceTunnel is wireguard-go inside this process, between a TUN device and a
// bind. The device ends with the process.
type userspaceTunnel struct {
	device *device.Device
	bind   *bind
}

// openUserspace starts wireguard-go's workers; Close waits for them. No packet
// moves before the first peer is configured.
func openUserspace(e end, mtu int) (tunnel, error) {
	t, err := tun.CreateTUN(e.device, mtu)
	if err != nil {
		access := flanneltun.CheckAccess() // of a missing file, CreateTUN does not wrap the error
		return nil, fmt.Errorf("make device %s: %w", e.device, cmp.Or(access, flanneltun.Explain(err)))
	}
	b := &bind{vrf: e.uplink.VRF, families: e.outer}
	return &userspaceTunnel{bind: b, device: device.NewDevice(yieldingTUN{t}, b, &device.Logger{
		Verbosef: func(format string, args ...any) {
			if log.V(3) {
				log.Infof("wireguard: "+format, args...)
			}
		},
		Errorf: func(format string, args ...any) { ratelog.Warningf("wireguard: "+format, args...) },
	})}, nil
}

// yieldingTUN is a TUN device whose reader yields the processor before each read.
// The workers then encrypt and send the last batch while it is in the cache.
// Otherwise thousands of packets queue up, with 64 KiB of memory each.
type yieldingTUN struct{ tun.Device }

// Read implements tun.Device.
func (y yieldingTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	runtime.Gosched()
	return y.Device.Read(bufs, sizes, offset)
}

func (u *userspaceTunnel) configure(c wgtypes.Config) error {
	if err := u.device.IpcSet(encode(c)); err != nil {
		return err
	}
	// Up binds the port here rather than when the interface comes up, so that a
	// port in use is an error.
	if err := u.device.Up(); err != nil || c.ListenPort == nil {
		return err
	}
	// The goroutine that follows the interface's state may have called Up before, in
	// another network namespace. The sockets belong into this thread's.
	return u.device.BindUpdate()
}

// setFamilies changes the families of the tunnel's datagrams.
func (u *userspaceTunnel) setFamilies(families []inet.Family) error {
	return u.bind.change(families, u.device.BindUpdate)
}

func (u *userspaceTunnel) peers() ([]wgtypes.Peer, error) {
	state, err := u.device.IpcGet()
	if err != nil {
		return nil, err
	}
	return decodePeers(state)
}

func (u *userspaceTunnel) initiate(peers []wgtypes.Peer, force bool) error {
	for _, p := range peers {
		peer := u.device.LookupPeer(device.NoisePublicKey(p.PublicKey))
		if peer == nil {
			continue // it was removed since
		}
		if force {
			peer.ExpireCurrentKeypairs()
		}
		_ = peer.SendHandshakeInitiation(false) // it logs its error
	}
	return nil
}

// Close ends the device and waits for its workers.
func (u *userspaceTunnel) Close() error {
	u.device.Close()
	<-u.device.Wait()
	return nil
}
