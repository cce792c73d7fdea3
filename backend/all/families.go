package all

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/flannel/pkg/inet"
)

// carriage is how a backend carries IPv6.
type carriage int

const (
	// ipv4Only: IPv4 packets in IPv4 packets, and nothing else.
	ipv4Only carriage = iota
	// sameFamily: packets of each family between hosts' addresses of that family.
	sameFamily
	// anyFamily: packets of both families between hosts' addresses of either.
	anyFamily
)

// Outside returns the families of outer headers that a backend of a type needs to
// carry the families inside. options is the configuration's Backend object: its Mode
// "ipv4" or "ipv6" chooses, where the backend leaves the choice.
func Outside(name string, options json.RawMessage, inside []inet.Family) []inet.Family {
	switch kinds[name].ipv6 {
	case ipv4Only:
		return []inet.Family{inet.IPv4}
	case anyFamily:
		var chosen struct{ Mode string }
		if len(options) > 0 && json.Unmarshal(options, &chosen) == nil { // otherwise the backend refuses it
			for _, f := range inet.Families {
				if strings.EqualFold(chosen.Mode, f.String()) {
					return []inet.Family{f}
				}
			}
		}
	}
	return inside
}

// Carries returns an error if a backend of a type cannot carry packets of a family
// between hosts whose outer headers can have the families outside.
func Carries(name string, inside inet.Family, outside []inet.Family) error {
	how := kinds[name].ipv6
	switch {
	case how == ipv4Only && inside == inet.IPv6:
		return fmt.Errorf("backend %s carries no IPv6", name)
	case how == anyFamily && len(outside) > 0 || slices.Contains(outside, inside):
		return nil
	}
	return fmt.Errorf("backend %s needs an %v address of this host", name, inside)
}
