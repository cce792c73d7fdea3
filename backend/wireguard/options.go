package wireguard

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
)

const (
	// DefaultPort is the UDP port of every generation of flannel.
	DefaultPort = 51820
	// DefaultPortV6 is the port of the device that carries IPv6 in mode separate.
	DefaultPortV6 = 51821
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

// separate is a value of the option Mode: each family has a device, a port, and
// datagrams of its own. The other modes are those of package backend; they have one
// device for both families.
const separate = "separate"

// options is the configuration's Backend object.
type options struct {
	// ListenPort is the UDP port of flannel-wg, ListenPortV6 that of flannel-wg-v6. Our
	// lease publishes them.
	ListenPort, ListenPortV6 int
	// MTU is that of the network between the hosts, in bytes; the default is the
	// uplink's.
	MTU int
	// mode is separate, or the family of the datagrams; "": see chooseEnds.
	mode string
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
		ListenPort, ListenPortV6    int
		MTU                         int
		Mode                        string
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
		ListenPort: cmp.Or(c.Port, raw.ListenPort, DefaultPort), ListenPortV6: cmp.Or(raw.ListenPortV6, DefaultPortV6),
		MTU: cmp.Or(raw.MTU, uplinkMTU(c)), mode: raw.Mode,
		keepalive: time.Duration(raw.PersistentKeepaliveInterval) * time.Second, dataPath: raw.Datapath,
	}
	if raw.PSK != "" {
		psk, err := wgtypes.ParseKey(raw.PSK)
		if err != nil {
			return o, errors.New("Backend.PSK is not a key in base64, as \"wg genpsk\" makes one")
		}
		o.psk = psk
	}
	if err := o.checkMTU(c); err != nil {
		return o, err
	}
	modes := []string{separate, backend.ModeAuto, backend.ModeIPv4, backend.ModeIPv6}
	switch {
	case o.ListenPort < 0 || o.ListenPort > math.MaxUint16:
		return o, fmt.Errorf("Backend.ListenPort %d is not a port, 1 to %d", o.ListenPort, math.MaxUint16)
	case o.ListenPortV6 < 0 || o.ListenPortV6 > math.MaxUint16:
		return o, fmt.Errorf("Backend.ListenPortV6 %d is not a port, 1 to %d", o.ListenPortV6, math.MaxUint16)
	case o.mode != "" && !slices.Contains(modes, o.mode):
		return o, fmt.Errorf("Backend.Mode %q is not known; known are %s", o.mode, strings.Join(modes, ", "))
	case raw.PersistentKeepaliveInterval < 0 || raw.PersistentKeepaliveInterval > math.MaxUint16:
		return o, fmt.Errorf("Backend.PersistentKeepaliveInterval %d is not in 0 to %d seconds", raw.PersistentKeepaliveInterval, math.MaxUint16)
	case o.dataPath != auto && o.dataPath != kernel && o.dataPath != userspace:
		return o, fmt.Errorf("Backend.Datapath %q is not known; known are %s, %s, %s", o.dataPath, auto, kernel, userspace)
	}
	for _, f := range inet.Families {
		if up := c.Of(f).Uplink; o.dataPath == kernel && up.VRF != "" {
			return o, fmt.Errorf("Backend.Datapath is %s, but %s; use %s or %s", kernel, vrfReason(up), auto, userspace)
		}
	}
	return o, nil
}

// uplinkMTU returns the least MTU of the interfaces to other hosts.
func uplinkMTU(c backend.Config) int {
	mtu := 0
	for _, f := range inet.Families {
		if s := c.Of(f); s.Outside() && (mtu == 0 || s.Uplink.MTU < mtu) {
			mtu = s.Uplink.MTU
		}
	}
	return mtu
}

func (o options) checkMTU(c backend.Config) error {
	for _, f := range c.Inside() {
		if least := f.MinMTU() + encapsulation; o.MTU < least || o.MTU > math.MaxUint16 {
			return fmt.Errorf("MTU %d of the network between the hosts is not in %d to %d: WireGuard takes %d bytes, %v needs %d", o.MTU, least, math.MaxUint16, encapsulation, f, f.MinMTU())
		}
	}
	return nil
}
