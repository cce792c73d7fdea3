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
	// DefaultPort is where every generation listens unless told otherwise.
	DefaultPort = 51820
	// encapsulation is the most that WireGuard adds to a packet, in bytes: IPv6
	// 40, UDP 8, its own header and tag 32. Over IPv4 it is 20 less, but all
	// generations reckon so, and the MTU must be the same on all hosts.
	encapsulation = 80
)

// Values of the option Datapath.
const (
	auto      = "auto"
	kernel    = "kernel"
	userspace = "userspace"
)

// options is the configuration's Backend object.
type options struct {
	// ListenPort is our UDP port; peers read it in our lease.
	ListenPort int
	// MTU is that of the network between the hosts; 0: the uplink's.
	MTU int
	// psk is a key that all hosts share besides their own; zero: none.
	psk wgtypes.Key
	// keepalive is how often to send something to each peer; 0: never.
	keepalive time.Duration
	// Datapath is auto, kernel or userspace.
	Datapath string
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
			return options{}, errors.New("object Backend is not one that wireguard understands")
		}
	}
	o := options{
		ListenPort: cmp.Or(c.Port, raw.ListenPort, DefaultPort), MTU: cmp.Or(raw.MTU, c.Uplink.MTU),
		keepalive: time.Duration(raw.PersistentKeepaliveInterval) * time.Second, Datapath: raw.Datapath,
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
	case o.Datapath != auto && o.Datapath != kernel && o.Datapath != userspace:
		return o, fmt.Errorf("Backend.Datapath %q is not known; known are %s, %s, %s", o.Datapath, auto, kernel, userspace)
	}
	return o, nil
}
