package wireguard

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/backend"
)

const (
	// DefaultPort is the UDP port of every generation of flannel.
	DefaultPort = 51820
	// encapsulation is the most that WireGuard adds to a packet, in bytes: IPv6
	// 40, UDP 8, its own header and tag 32. IPv4 takes 20 less, but every
	// generation subtracts 80, and the MTU must be the same on all hosts.
	encapsulation = 80
)

// Values of the option Datapath: auto prefers the kernel.
const (
	auto      = "auto"
	kernel    = "kernel"
	userspace = "userspace"
)

// options is the configuration's Backend object.
type options struct {
	// ListenPort is our UDP port, which our lease publishes.
	ListenPort int
	// MTU is that of the network between the hosts, in bytes; the default is the
	// uplink's.
	MTU int
	// psk is the preshared key of all hosts; zero: none.
	psk wgtypes.Key
	// keepalive is the interval between keepalives to each peer; 0: none.
	keepalive time.Duration
	// dataPath is auto, kernel or userspace.
	dataPath string
}

// parseOptions never quotes the object in an error: it may hold a secret.
func parseOptions(c backend.Config) (options, error) {
	raw := struct {
		ListenPort                  int
		MTU                         int
		PSK                         string
		PersistentKeepaliveInterval int64 // seconds
		Datapath                    string
	}{Datapath: auto}
	if c.Options != nil {
		if err := json.Unmarshal(c.Options, &raw); err != nil {
			var kind *json.UnmarshalTypeError
			if errors.As(err, &kind) && kind.Field != "" {
				return options{}, fmt.Errorf("option %s of Backend must not be a JSON %s", kind.Field, kind.Value)
			}
			return options{}, errors.New("object Backend does not parse")
		}
	}
	o := options{
		ListenPort: cmp.Or(c.Port, raw.ListenPort, DefaultPort), MTU: cmp.Or(raw.MTU, c.Uplink.MTU),
		keepalive: time.Duration(raw.PersistentKeepaliveInterval) * time.Second, dataPath: raw.Datapath,
	}
	if raw.PSK != "" {
		psk, err := wgtypes.ParseKey(raw.PSK)
		if err != nil {
			return o, errors.New("Backend.PSK is not a key in base64, as \"wg genpsk\" makes one")
		}
		o.psk = psk
	}
	switch {
	case o.ListenPort < 0 || o.ListenPort > math.MaxUint16:
		return o, fmt.Errorf("Backend.ListenPort %d is not a port, 1 to %d", o.ListenPort, math.MaxUint16)
	case o.MTU-encapsulation < backend.MinMTU || o.MTU > math.MaxUint16:
		return o, fmt.Errorf("MTU %d of the network between the hosts is not in %d to %d: WireGuard takes %d bytes, IPv4 needs %d", o.MTU, backend.MinMTU+encapsulation, math.MaxUint16, encapsulation, backend.MinMTU)
	case raw.PersistentKeepaliveInterval < 0 || raw.PersistentKeepaliveInterval > math.MaxUint16:
		return o, fmt.Errorf("Backend.PersistentKeepaliveInterval %d is not in 0 to %d seconds", raw.PersistentKeepaliveInterval, math.MaxUint16)
	case o.dataPath != auto && o.dataPath != kernel && o.dataPath != userspace:
		return o, fmt.Errorf("Backend.Datapath %q is not known; known are %s, %s, %s", o.dataPath, auto, kernel, userspace)
	case o.dataPath == kernel && c.Uplink.VRF != "":
		return o, fmt.Errorf("Backend.Datapath is %s, but %s; use %s or %s", kernel, vrfReason(c.Uplink), auto, userspace)
	}
	return o, nil
}
