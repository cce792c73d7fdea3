package subnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/printable"
)

// ParseLease decodes a lease key, relative to <prefix>/subnets/, and its JSON
// value, as every generation of flannel writes them. It ignores unknown fields
// of the value. The store sets Expiration, Rev and Reserved.
func ParseLease(key string, value []byte) (Lease, error) {
	l, err := ParseKey(key)
	if err != nil {
		return Lease{}, err
	}
	l.Attrs, err = parseAttrs(value)
	if err != nil {
		return Lease{}, fmt.Errorf("decode value of lease %q: %w", key, err)
	}
	return l, nil
}

// EncodeLease returns l's JSON value. Without backend type and Extras it equals
// that of the first flannel byte for byte. EncodeLease fails if key or value do
// not parse: one bad key makes today's flannel drop every route.
func EncodeLease(l Lease) ([]byte, error) {
	a := l.Attrs
	if !a.PublicIP.IsValid() {
		a.PublicIP = inet.IPv4.Unspecified() // it is always present
	}
	v, err := json.Marshal(a)
	if err == nil {
		_, err = ParseLease(l.Key(), v)
	}
	if err != nil {
		return nil, fmt.Errorf("encode lease %v: %w", l, err)
	}
	return v, nil
}

// ParseKey decodes a lease key such as "10.5.52.0-24", that of a dual-stack host,
// "10.5.52.0-24&fd00:0:0:34::-64", or that of an IPv6-only host,
// "0.0.0.0-0&fd00:0:0:34::-64". It accepts only the canonical form, so that key and
// lease correspond one to one.
func ParseKey(key string) (Lease, error) {
	v4, v6, hasV6 := strings.Cut(key, "&")
	hasV4 := !hasV6 || v4 != noIPv4
	var l Lease
	var err error
	if hasV4 {
		l.Subnet, err = parseDashed(v4)
	}
	if err == nil && hasV6 {
		l.IPv6Subnet, err = parseDashed(v6)
	}
	switch {
	case err != nil:
		return Lease{}, fmt.Errorf("decode lease key %q: %w", key, err)
	case hasV4 && !l.Subnet.Addr().Is4():
		return Lease{}, fmt.Errorf("decode lease key %q: %v is not an IPv4 subnet", key, l.Subnet)
	case hasV6 && (!l.IPv6Subnet.Addr().Is6() || l.IPv6Subnet.Addr().Is4In6()):
		return Lease{}, fmt.Errorf("decode lease key %q: %v is not an IPv6 subnet", key, l.IPv6Subnet)
	case l.Key() != key:
		return Lease{}, fmt.Errorf("decode lease key %q: not in canonical form %q", key, l.Key())
	}
	return l, nil
}

func parseDashed(s string) (netip.Prefix, error) {
	addr, length, ok := strings.Cut(s, "-")
	if !ok {
		return netip.Prefix{}, fmt.Errorf("%q is not ADDRESS-LENGTH", s)
	}
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.Prefix{}, err
	}
	n, err := strconv.Atoi(length)
	if err != nil || n < 1 || n > a.BitLen() {
		return netip.Prefix{}, fmt.Errorf("prefix length %q is not in 1..%d", length, a.BitLen())
	}
	p := netip.PrefixFrom(a, n)
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%v has bits set to the right of its prefix length", p)
	}
	return p, nil
}

// maxText bounds each text of a lease, in bytes: a host name has at most 253
// (RFC 1035, section 2.3.4).
const maxText = 253

// PrintableText returns a text of a lease as ParseLease does.
func PrintableText(s string) string { return printable.Word(s, maxText) }

// commonFields are written by all generations of flannel into the value of a
// lease key.
type commonFields struct {
	PublicIP    netip.Addr
	BackendType string
	BackendData json.RawMessage
}

// ipv6Fields are those of IPv6.
type ipv6Fields struct {
	PublicIPv6    netip.Addr
	BackendV6Data json.RawMessage
}

// allFields is the value of a lease key.
type allFields struct {
	commonFields
	ipv6Fields
	Extras
}

func parseAttrs(value []byte) (Attrs, error) {
	var v allFields
	if json.Unmarshal(value, &v) != nil {
		// Another program's fields may have the Extras' names, or the IPv6 fields may
		// be wrong. The IPv4 part matters more.
		v = allFields{}
		if err := json.Unmarshal(value, &v.commonFields); err != nil {
			return Attrs{}, err
		}
		if json.Unmarshal(value, &v.ipv6Fields) != nil {
			v.ipv6Fields = ipv6Fields{}
		}
		if json.Unmarshal(value, &v.Extras) != nil {
			v.Extras = Extras{}
		}
	}
	if !IsHostAddr(inet.IPv6, v.PublicIPv6) {
		v.PublicIPv6 = netip.Addr{}
	}
	if v.PublicIP == inet.IPv4.Unspecified() && v.PublicIPv6.IsValid() {
		v.PublicIP = netip.Addr{}
	} else if err := checkPublicIP(v.PublicIP); err != nil {
		return Attrs{}, err
	}
	for _, data := range []*json.RawMessage{&v.BackendData, &v.BackendV6Data} {
		if string(*data) == "null" {
			*data = nil
		}
	}
	// These reach logs and terminals, and anybody who may write to the store
	// can put there what a terminal obeys.
	for _, text := range []*string{&v.BackendType, &v.NodeID, &v.Hostname, &v.Challenge, &v.DataPath, &v.DataPathPairs} {
		*text = PrintableText(*text) // promise: text-of-leases-is-printable
	}
	return Attrs{PublicIP: v.PublicIP, PublicIPv6: v.PublicIPv6, BackendType: v.BackendType,
		BackendData: v.BackendData, BackendV6Data: v.BackendV6Data, Extras: v.Extras}, nil
}

func checkPublicIP(ip netip.Addr) error {
	switch {
	case !ip.IsValid():
		return errors.New("PublicIP is missing")
	case !IsHostAddr(inet.IPv4, ip):
		return fmt.Errorf("PublicIP %q is not an IPv4 address of one host that others can send to", ip)
	}
	return nil
}
