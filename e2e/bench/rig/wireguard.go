package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/subnetfile"
)

const (
	wireguardPort = 51820
	// wireguardOverhead is the outer IPv6 and UDP headers, and WireGuard's own header
	// and tag, in bytes. flannel and wg-quick subtract as much.
	wireguardOverhead = 80
	// configureTimeout bounds the wait for wireguard-go's control socket.
	configureTimeout = 10 * time.Second
)

// wireguardGo is wireguard-go's own program on each host, with a peer for each
// subnet and one route to the overlay.
type wireguardGo struct {
	pair    *Pair
	ends    [2]*wireguardEnd
	control *wgctrl.Client
}

// wireguardEnd is the wireguard-go on one host.
type wireguardEnd struct {
	host *netnstest.Host
	addr netip.Prefix // of the device
	// device is unique on the machine: the control sockets of all network namespaces
	// are in one folder, by the devices' names.
	device  string
	config  wgtypes.Config
	process *netnstest.Process // nil: it does not run
}

func openWireGuard(_ context.Context, p *Pair) (transport, error) {
	program := p.rig.programs.WireGuardGo
	if _, err := os.Stat(program); err != nil {
		return nil, &RefusedError{fmt.Sprintf("there is no wireguard-go (%v); ./bench builds it", err)}
	}
	w := &wireguardGo{pair: p}
	var keys [2]wgtypes.Key
	for i := range keys {
		var err error
		if keys[i], err = wgtypes.GeneratePrivateKey(); err != nil {
			return nil, fmt.Errorf("make private key: %w", err)
		}
	}
	f := p.setting.Inside
	for i, h := range p.hosts {
		port := wireguardPort
		e := &wireguardEnd{host: h, addr: host(peerSubnet(f, i).Addr()), device: fmt.Sprintf("wg%d-%d%c", os.Getpid(), len(p.rig.pairs), 'a'+i)}
		e.config = wgtypes.Config{PrivateKey: &keys[i], ListenPort: &port, Peers: []wgtypes.PeerConfig{wireguardPeer(f, 1-i, keys[1-i].PublicKey())}}
		for n := 2; n <= p.setting.Routes; n++ {
			e.config.Peers = append(e.config.Peers, wireguardPeer(f, n, wireguardKey(n)))
		}
		w.ends[i] = e
	}
	var err error
	if w.control, err = wgctrl.New(); err != nil {
		return nil, fmt.Errorf("open WireGuard's control: %w", err)
	}
	p.rig.scope.Cleanup(func() { w.control.Close() })
	return w, nil
}

func wireguardPeer(f inet.Family, n int, key wgtypes.Key) wgtypes.PeerConfig {
	return wgtypes.PeerConfig{
		PublicKey: key, Endpoint: net.UDPAddrFromAddrPort(netip.AddrPortFrom(publicIP(f, n), wireguardPort)),
		AllowedIPs: []net.IPNet{*netnstest.IPNet(peerSubnet(f, n))},
	}
}

func (w *wireguardGo) up(ctx context.Context) (envs [2]subnetfile.Env, err error) {
	for _, e := range w.ends {
		if err := w.start(ctx, e); err != nil {
			return envs, fmt.Errorf("start wireguard-go on %s: %w", e.host.Name(), err)
		}
	}
	return byHandEnvs(w.pair.setting.Inside, linkMTU-wireguardOverhead), nil
}

func (w *wireguardGo) start(ctx context.Context, e *wireguardEnd) error {
	dir := w.pair.rig.folder(e.host)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	// stop ends it, not ctx, so that it removes its socket.
	cmd := e.host.Command(context.WithoutCancel(ctx), w.pair.rig.programs.WireGuardGo, "-f", e.device)
	cmd.Stdout, cmd.Stderr = log, log
	if e.process, err = cmd.Launch(); err != nil {
		return err
	}
	if err := w.configure(ctx, e); err != nil {
		return err
	}
	e.host.SetMTU(e.device, linkMTU-wireguardOverhead)
	e.host.AddAddr(e.device, e.addr)
	e.host.Up(e.device)
	e.host.AddRoute(overlays[w.pair.setting.Inside], netip.Addr{}, e.device)
	return nil
}

// configure waits for the control socket, and configures the device.
func (w *wireguardGo) configure(ctx context.Context, e *wireguardEnd) error {
	ctx, cancel := context.WithTimeout(ctx, configureTimeout)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := w.control.ConfigureDevice(e.device, e.config)
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		select {
		case <-again.C:
		case <-e.process.Ended():
			return errors.New("it has ended; it needs /dev/net/tun and CAP_NET_ADMIN")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *wireguardGo) down() error {
	var errs []error
	for _, e := range w.ends {
		p := e.process
		e.process = nil
		if err := p.Stop(stopTimeout); err != nil {
			errs = append(errs, fmt.Errorf("stop wireguard-go on %s: %w", e.host.Name(), err))
		}
	}
	return errors.Join(errs...)
}
