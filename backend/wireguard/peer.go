package wireguard

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/subnet"
)

// peer is the content of a lease.
type peer struct {
	subnet   netip.Prefix
	publicIP netip.Addr
	key      wgtypes.Key
	port     int
	// problem is why the tunnel does not get the peer; nil: none.
	problem error
}

// parsePeer decodes an added lease for an end; own is our public key.
func parsePeer(e subnet.Event, at end, own wgtypes.Key) *peer {
	a := e.Lease.Attrs
	p := &peer{subnet: e.Subnet(), publicIP: a.Addr(e.Family)}
	outer, err := at.choose(a)
	if err != nil {
		p.problem = err
		return p
	}
	p.publicIP = a.Addr(outer)
	var data leaseData
	if err := json.Unmarshal(a.Data(outer), &data); err != nil {
		p.problem = fmt.Errorf("decode %s %q: %w", backend.DataKey(outer), a.Data(outer), err)
		return p
	}
	if p.key, err = wgtypes.ParseKey(data.PublicKey); err != nil {
		p.problem = fmt.Errorf("PublicKey %q is not a key", data.PublicKey)
		return p
	}
	p.port = cmp.Or(data.Port, at.port)
	switch {
	case p.port < 0 || p.port > math.MaxUint16:
		p.problem = fmt.Errorf("its Port %d is not a port", data.Port)
	case p.key == own:
		p.problem = errors.New("it has our own key: is it a copy of this host?")
	}
	return p
}

// peerConfig is the tunnel's configuration of one key. WireGuard identifies peers
// by their keys, and a host may have several subnets.
type peerConfig struct {
	endpoint  netip.AddrPort
	allowed   []netip.Prefix // sorted
	psk       wgtypes.Key    // zero: none
	keepalive time.Duration
}

func (c peerConfig) equal(d peerConfig) bool {
	return c.endpoint == d.endpoint && slices.Equal(c.allowed, d.allowed) && c.psk == d.psk && c.keepalive == d.keepalive
}

// desiredPeers returns the configuration that the tunnel should have. If several
// hosts have one key, the host of the first subnet gets it.
func desiredPeers(peers map[netip.Prefix]*peer, o options) map[wgtypes.Key]peerConfig {
	configs := make(map[wgtypes.Key]peerConfig, len(peers))
	for _, dst := range slices.SortedFunc(maps.Keys(peers), netip.Prefix.Compare) {
		p := peers[dst]
		if p.problem != nil {
			continue
		}
		endpoint := netip.AddrPortFrom(p.publicIP, uint16(p.port))
		c, known := configs[p.key]
		if !known {
			c = peerConfig{endpoint: endpoint, psk: o.psk, keepalive: o.keepalive}
		}
		if c.endpoint == endpoint {
			c.allowed = append(c.allowed, dst)
		}
		configs[p.key] = c
	}
	return configs
}

// decodeConfigs returns the configuration that a tunnel has.
func decodeConfigs(peers []wgtypes.Peer) map[wgtypes.Key]peerConfig {
	configs := make(map[wgtypes.Key]peerConfig, len(peers))
	for _, p := range peers {
		c := peerConfig{psk: p.PresharedKey, keepalive: p.PersistentKeepaliveInterval}
		if p.Endpoint != nil {
			a := p.Endpoint.AddrPort()
			c.endpoint = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		}
		for _, n := range p.AllowedIPs {
			c.allowed = append(c.allowed, netdev.Prefix(n))
		}
		slices.SortFunc(c.allowed, netip.Prefix.Compare)
		configs[p.PublicKey] = c
	}
	return configs
}

// encode returns c for key, with these subnets.
func (c peerConfig) encode(key wgtypes.Key, allowed []netip.Prefix) wgtypes.PeerConfig {
	p := wgtypes.PeerConfig{
		PublicKey: key, PresharedKey: &c.psk, Endpoint: net.UDPAddrFromAddrPort(c.endpoint),
		PersistentKeepaliveInterval: &c.keepalive, ReplaceAllowedIPs: true,
	}
	for _, a := range allowed {
		p.AllowedIPs = append(p.AllowedIPs, *netdev.IPNet(a))
	}
	return p
}

// diffPeers returns the changes from before to after. Removals come last: a
// subnet belongs to one key at a time and passes to another key without a gap in
// which its packets are dropped. An unchanged peer keeps its session.
func diffPeers(before, after map[wgtypes.Key]peerConfig) []wgtypes.PeerConfig {
	var remove, set []wgtypes.PeerConfig
	for key := range before {
		if _, stays := after[key]; !stays {
			remove = append(remove, wgtypes.PeerConfig{PublicKey: key, Remove: true})
		}
	}
	for key, c := range after {
		if b, known := before[key]; known && b.equal(c) {
			continue
		}
		set = append(set, c.encode(key, c.allowed))
	}
	return append(set, remove...)
}
