package kube

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// DefaultPrefix is the default of -kube-annotation-prefix.
const DefaultPrefix = "flannel.alpha.coreos.com"

// Suffixes of the annotations that all flannels share. Those with two forms are by
// family. The administrator writes the last two.
const (
	suffixManaged = "kube-subnet-manager"
	suffixType    = "backend-type"
	// suffixExtras is this program's own: subnet.Extras as JSON.
	suffixExtras = "extras"
)

var (
	suffixData      = [...]string{"backend-data", "backend-v6-data"}
	suffixPublicIP  = [...]string{"public-ip", "public-ipv6"}
	suffixNodeIP    = [...]string{"node-public-ip", "node-public-ipv6"}
	suffixOverwrite = [...]string{"public-ip-overwrite", "public-ipv6-overwrite"}
)

// Annotations are the names of the annotations of a Node: a prefix, and a suffix
// for each.
type Annotations struct{ prefix string }

// prefixForm is a domain with at least one dot, a slash, and perhaps a word that
// ends with a dash.
var prefixForm = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)+/([a-z0-9_-]+-)?$`)

// ParseAnnotations returns the names for a value of -kube-annotation-prefix.
func ParseAnnotations(prefix string) (Annotations, error) {
	full := prefix
	switch {
	case !strings.Contains(full, "/"):
		full += "/"
	case !strings.HasSuffix(full, "/") && !strings.HasSuffix(full, "-"):
		full += "-"
	}
	if !prefixForm.MatchString(full) {
		return Annotations{}, fmt.Errorf("-kube-annotation-prefix %q is neither a domain such as %s nor a domain and a word such as example.com/flannel", prefix, DefaultPrefix)
	}
	return Annotations{full}, nil
}

// of returns the annotation with a suffix.
func (a Annotations) of(n *node, suffix string) string {
	return n.Metadata.Annotations[a.prefix+suffix]
}

// address returns the address in an annotation of the administrator; an invalid one
// without.
func (a Annotations) address(n *node, f inet.Family, suffix [2]string) (netip.Addr, error) {
	text := a.of(n, suffix[f])
	if text == "" {
		return netip.Addr{}, nil
	}
	ip, err := netip.ParseAddr(text)
	if err != nil || !subnet.IsHostAddr(f, ip) {
		return netip.Addr{}, fmt.Errorf("annotation %s%s %q is not an %v address of a host", a.prefix, suffix[f], text, f)
	}
	return ip, nil
}

// record is a lease's value as the etcd stores have it (subnet.EncodeLease). The
// annotations are its fields.
type record struct {
	PublicIP      string
	PublicIPv6    *string
	BackendType   string          `json:",omitempty"`
	BackendData   json.RawMessage `json:",omitempty"`
	BackendV6Data json.RawMessage `json:",omitempty"`
}

// lease decodes the lease of n. ok is false if n is no host of this network: then
// only the subnets are set. An error is a fault of the annotations.
func (a Annotations) lease(n *node) (l subnet.Lease, ok bool, err error) {
	key, err := n.key()
	if a.of(n, suffixManaged) != "true" {
		return key, false, nil
	}
	if err == nil {
		l, err = a.decode(n, a.published(n, key))
	}
	if err != nil {
		return subnet.Lease{}, false, fmt.Errorf("decode annotations %s* of node %s: %w", a.prefix, n.Metadata.Name, err)
	}
	l.Rev = key.Rev
	return l, true, nil
}

// published returns key with the parts of the families that the host has published, by
// an address or by data. A Node has its podCIDRs before, and a host that carries one
// family has both. Without any family, key stays as it is, and its attributes are at
// fault.
func (a Annotations) published(n *node, key subnet.Lease) subnet.Lease {
	l := key
	for _, f := range inet.Families {
		if a.of(n, suffixPublicIP[f]) == "" && a.of(n, suffixData[f]) == "" { // promise: unpublished-family-is-no-part
			l = l.Without(f)
		}
	}
	if !l.IsValid() {
		return key
	}
	return l
}

func (a Annotations) decode(n *node, key subnet.Lease) (subnet.Lease, error) {
	for f, data := range suffixData { // a host without data writes null
		if a.of(n, suffixPublicIP[f]) != "" && a.of(n, data) == "" { // promise: lost-data-is-no-data
			return subnet.Lease{}, fmt.Errorf("%s%s is missing", a.prefix, data)
		}
	}
	r := record{PublicIP: a.of(n, suffixPublicIP[inet.IPv4]), BackendType: a.of(n, suffixType),
		BackendData:   json.RawMessage(a.of(n, suffixData[inet.IPv4])),
		BackendV6Data: json.RawMessage(a.of(n, suffixData[inet.IPv6]))}
	if ip := a.of(n, suffixPublicIP[inet.IPv6]); ip != "" {
		r.PublicIPv6 = &ip
		if r.PublicIP == "" { // a host without IPv4
			r.PublicIP = inet.IPv4.Unspecified().String()
		}
	}
	value, err := json.Marshal(struct {
		record
		subnet.Extras
	}{r, a.extras(n)})
	if err != nil {
		return subnet.Lease{}, err
	}
	return subnet.ParseLease(key.Key(), value)
}

// extras decodes our own annotation. Another program may have damaged it; the peer
// matters more.
func (a Annotations) extras(n *node) (e subnet.Extras) {
	if text := a.of(n, suffixExtras); text != "" && json.Unmarshal([]byte(text), &e) != nil {
		e = subnet.Extras{}
	}
	e.Hostname = n.Metadata.Name
	return e
}

// encode returns the annotations that hold l's attributes; nil removes one. The
// bytes are those that every flannel writes. A family without an address has data if l
// has a part of it: its packets are inside datagrams of the other family.
func (a Annotations) encode(l subnet.Lease) (map[string]*string, error) {
	value, err := subnet.EncodeLease(l)
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, fmt.Errorf("encode annotations of %v: %w", l, err)
	}
	own := l.Attrs.Extras
	own.Hostname = "" // the Node has it
	extras, err := json.Marshal(own)
	if err != nil {
		return nil, fmt.Errorf("encode annotations of %v: %w", l, err)
	}
	set := map[string]*string{a.prefix + suffixExtras: nil}
	put := func(suffix, value string) { set[a.prefix+suffix] = &value }
	put(suffixManaged, "true")
	put(suffixType, r.BackendType)
	for f, data := range [...]json.RawMessage{r.BackendData, r.BackendV6Data} {
		set[a.prefix+suffixPublicIP[f]], set[a.prefix+suffixData[f]] = nil, nil
		ip := l.Attrs.Addr(inet.Family(f))
		if ip.IsValid() {
			put(suffixPublicIP[f], ip.String())
		}
		if ip.IsValid() || l.SubnetOf(inet.Family(f)).IsValid() {
			put(suffixData[f], orNull(data))
		}
	}
	if string(extras) != "{}" {
		put(suffixExtras, string(extras))
	}
	return set, nil
}

// orNull returns the JSON of backend data, "null" for none.
func orNull(data json.RawMessage) string {
	if len(data) == 0 {
		return "null"
	}
	return string(data)
}

// changes returns the part of set that n does not have.
func (a Annotations) changes(n *node, set map[string]*string) map[string]*string {
	changed := map[string]*string{}
	for name, value := range set {
		have, exists := n.Metadata.Annotations[name]
		if exists != (value != nil) || value != nil && have != *value {
			changed[name] = value
		}
	}
	return changed
}
