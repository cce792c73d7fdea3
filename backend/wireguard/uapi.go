package wireguard

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// encode writes c as lines KEY=VALUE, the configuration protocol of WireGuard in
// user space (https://www.wireguard.com/xplatform/).
func encode(c wgtypes.Config) string {
	var b strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&b, "%s=%v\n", key, value) }
	if c.PrivateKey != nil {
		line("private_key", hex.EncodeToString(c.PrivateKey[:]))
	}
	if c.ListenPort != nil {
		line("listen_port", *c.ListenPort)
	}
	for _, p := range c.Peers {
		line("public_key", hex.EncodeToString(p.PublicKey[:]))
		if p.Remove {
			line("remove", true)
			continue
		}
		if p.UpdateOnly {
			line("update_only", true)
		}
		if p.PresharedKey != nil {
			line("preshared_key", hex.EncodeToString(p.PresharedKey[:]))
		}
		if p.Endpoint != nil {
			line("endpoint", p.Endpoint)
		}
		if p.PersistentKeepaliveInterval != nil {
			line("persistent_keepalive_interval", int(p.PersistentKeepaliveInterval.Seconds()))
		}
		if p.ReplaceAllowedIPs {
			line("replace_allowed_ips", true)
		}
		for _, a := range p.AllowedIPs {
			line("allowed_ip", a.String())
		}
	}
	return b.String()
}

// decodePeers reads the peers in a device's state: what encode can set, and the
// last handshake.
func decodePeers(state string) ([]wgtypes.Peer, error) {
	var peers []wgtypes.Peer
	for line := range strings.Lines(state) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			continue
		}
		if key == "public_key" {
			b, err := hex.DecodeString(value)
			if err != nil || len(b) != wgtypes.KeyLen {
				return nil, fmt.Errorf("decode peer: public key %q", value)
			}
			peers = append(peers, wgtypes.Peer{PublicKey: wgtypes.Key(b)})
		}
		if len(peers) == 0 {
			continue // a key of the device
		}
		p := &peers[len(peers)-1]
		switch key {
		case "preshared_key":
			b, err := hex.DecodeString(value)
			if err != nil || len(b) != wgtypes.KeyLen {
				return nil, fmt.Errorf("decode peer %v: preshared key", p.PublicKey)
			}
			p.PresharedKey = wgtypes.Key(b)
		case "last_handshake_time_sec":
			seconds, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("decode peer %v: last handshake: %w", p.PublicKey, err)
			}
			if seconds != 0 {
				p.LastHandshakeTime = time.Unix(seconds, 0)
			}
		case "last_handshake_time_nsec": // follows the seconds, and is 0 with them
			nanoseconds, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("decode peer %v: last handshake: %w", p.PublicKey, err)
			}
			p.LastHandshakeTime = p.LastHandshakeTime.Add(time.Duration(nanoseconds))
		case "persistent_keepalive_interval":
			seconds, err := strconv.Atoi(value)
			if err != nil {
				return nil, fmt.Errorf("decode peer %v: keepalive: %w", p.PublicKey, err)
			}
			p.PersistentKeepaliveInterval = time.Duration(seconds) * time.Second
		case "endpoint":
			addr, err := netip.ParseAddrPort(value)
			if err != nil {
				return nil, fmt.Errorf("decode peer %v: endpoint: %w", p.PublicKey, err)
			}
			p.Endpoint = net.UDPAddrFromAddrPort(addr)
		case "allowed_ip":
			_, ipNet, err := net.ParseCIDR(value)
			if err != nil {
				return nil, fmt.Errorf("decode peer %v: allowed IP: %w", p.PublicKey, err)
			}
			p.AllowedIPs = append(p.AllowedIPs, *ipNet)
		}
	}
	return peers, nil
}
