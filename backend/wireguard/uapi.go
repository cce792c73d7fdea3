package wireguard

import (
	"encoding/hex"
	"errors"
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
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if key == "public_key" {
			peers = append(peers, wgtypes.Peer{})
		}
		if len(peers) == 0 {
			continue // a key of the device
		}
		if err := decode(&peers[len(peers)-1], key, value); err != nil {
			return nil, fmt.Errorf("decode %s of peer %v: %w", key, peers[len(peers)-1].PublicKey, err)
		}
	}
	return peers, nil
}

func decode(p *wgtypes.Peer, key, value string) (err error) {
	var n int64
	switch key {
	case "public_key":
		p.PublicKey, err = decodeKey(value)
	case "preshared_key":
		p.PresharedKey, err = decodeKey(value)
	case "last_handshake_time_sec":
		if n, err = strconv.ParseInt(value, 10, 64); n != 0 {
			p.LastHandshakeTime = time.Unix(n, 0)
		}
	case "last_handshake_time_nsec": // follows the seconds, and is 0 with them
		n, err = strconv.ParseInt(value, 10, 64)
		p.LastHandshakeTime = p.LastHandshakeTime.Add(time.Duration(n))
	case "persistent_keepalive_interval":
		n, err = strconv.ParseInt(value, 10, 64)
		p.PersistentKeepaliveInterval = time.Duration(n) * time.Second
	case "endpoint":
		var addr netip.AddrPort
		addr, err = netip.ParseAddrPort(value)
		p.Endpoint = net.UDPAddrFromAddrPort(addr)
	case "allowed_ip":
		var ipNet *net.IPNet
		if _, ipNet, err = net.ParseCIDR(value); err == nil {
			p.AllowedIPs = append(p.AllowedIPs, *ipNet)
		}
	}
	return err
}

// decodeKey's error does not quote the key, which may be secret.
func decodeKey(text string) (wgtypes.Key, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != wgtypes.KeyLen {
		return wgtypes.Key{}, errors.New("it is not a key")
	}
	return wgtypes.Key(b), nil
}
