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

	"github.com/coreos/flannel/subnet"
)

// peer is what a lease says.
type peer struct {
	subnet   netip.Prefix
	publicIP netip.Addr
	key      wgtypes.Key
	port     int
	// fault is why the tunnel is told nothing of it.
	fault error
}

// read decodes a lease; own is our public key.
func read(l subnet.Lease, own wgtypes.Key) *peer {
	p := &peer{subnet: l.Subnet, publicIP: l.Attrs.PublicIP}
	var data leaseData
	if p.fault = json.Unmarshal(l.Attrs.BackendData, &data); p.fault != nil {
		p.fault = fmt.Errorf("decode BackendData %q: %w", l.Attrs.BackendData, p.fault)
		return p
	}
	var err error
	if p.key, err = wgtypes.ParseKey(data.PublicKey); err != nil {
		p.fault = fmt.Errorf("PublicKey %q is not a key", data.PublicKey)
		return p
	}
	p.port = cmp.Or(data.Port, DefaultPort)
	switch {
	case p.port < 0 || p.port > math.MaxUint16:
		p.fault = fmt.Errorf("its Port %d is not a port", data.Port)
	case p.key == own:
		p.fault = errors.New("it has our own key: is it a copy of this host?")
	}
	return p
}

// claim is what one key is for: WireGuard knows peers by their keys, and a host
// may have several subnets.
type claim struct {
	endpoint  netip.AddrPort
	allowed   []netip.Prefix // in order
	psk       wgtypes.Key    // zero: none
	keepalive time.Duration
}

func (c claim) equal(d claim) bool {
	return c.endpoint == d.endpoint && slices.Equal(c.allowed, d.allowed) && c.psk == d.psk && c.keepalive == d.keepalive
}

// desired is what peers want of the tunnel. Of hosts with one key, that of the
// first subnet counts.
func desired(peers map[netip.Prefix]*peer, o options) map[wgtypes.Key]claim {
	claims := make(map[wgtypes.Key]claim, len(peers))
	for _, dst := range slices.SortedFunc(maps.Keys(peers), netip.Prefix.Compare) {
		p := peers[dst]
		if p.fault != nil {
			continue
		}
		endpoint := netip.AddrPortFrom(p.publicIP, uint16(p.port))
		c, known := claims[p.key]
		if !known {
			c = claim{endpoint: endpoint, psk: o.psk, keepalive: o.keepalive}
		}
		if c.endpoint == endpoint {
			c.allowed = append(c.allowed, dst)
		}
		claims[p.key] = c
	}
	return claims
}

// present is what a tunnel has.
func present(peers []wgtypes.Peer) map[wgtypes.Key]claim {
	claims := make(map[wgtypes.Key]claim, len(peers))
	for _, p := range peers {
		c := claim{psk: p.PresharedKey, keepalive: p.PersistentKeepaliveInterval}
		if p.Endpoint != nil {
			a := p.Endpoint.AddrPort()
			c.endpoint = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		}
		for _, n := range p.AllowedIPs {
			ip, _ := netip.AddrFromSlice(n.IP)
			ones, _ := n.Mask.Size()
			c.allowed = append(c.allowed, netip.PrefixFrom(ip.Unmap(), ones))
		}
		slices.SortFunc(c.allowed, netip.Prefix.Compare)
		claims[p.PublicKey] = c
	}
	return claims
}

// config is the claim as the tunnel is told it, with these subnets.
func (c claim) config(key wgtypes.Key, allowed []netip.Prefix) wgtypes.PeerConfig {
	p := wgtypes.PeerConfig{
		PublicKey: key, PresharedKey: &c.psk, Endpoint: net.UDPAddrFromAddrPort(c.endpoint),
		PersistentKeepaliveInterval: &c.keepalive, ReplaceAllowedIPs: true,
	}
	for _, a := range allowed {
		p.AllowedIPs = append(p.AllowedIPs, net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())})
	}
	return p
}

// changes turns one set of claims into another. Removals come last: a subnet
// belongs to one key at a time, and goes over to another without a moment in
// which it is nobody's and its packets are dropped. What is the same stays
// untouched, and with it the session.
func changes(before, after map[wgtypes.Key]claim) []wgtypes.PeerConfig {
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
		set = append(set, c.config(key, c.allowed))
	}
	return append(set, remove...)
}
