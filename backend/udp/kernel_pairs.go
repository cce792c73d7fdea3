package udp

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/udp/bpf"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// pair is the families of a packet and of the datagram around it.
type pair struct{ inner, outer inet.Family }

// String is the pair's name in leases: "6in4".
func (p pair) String() string {
	number := map[inet.Family]string{inet.IPv4: "4", inet.IPv6: "6"}
	return number[p.inner] + "in" + number[p.outer]
}

// classicPair is the pair that the programs of every release take. Leases list others.
var classicPair = pair{inet.IPv4, inet.IPv4}

// takenBy reports whether the programs of a lease's host take the pair.
func (p pair) takenBy(l subnet.Attrs) bool {
	listed := p == classicPair || slices.Contains(strings.Split(l.DataPathPairs, ","), p.String())
	return l.DataPath == kernelName && listed // promise: programs-get-what-they-take
}

// pairs are those that programs take. An IPv4 host's are in a lease as DataPath, which
// means the classic one, and DataPathPairs.
type pairs []pair

// String is the form of DataPathPairs.
func (p pairs) String() string {
	var all []string
	for _, one := range p {
		if one != classicPair {
			all = append(all, one.String())
		}
	}
	return strings.Join(all, ",")
}

// outer returns the families of the datagrams.
func (p pairs) outer() (all []inet.Family) {
	for _, f := range inet.Families {
		if slices.ContainsFunc(p, func(one pair) bool { return one.outer == f }) {
			all = append(all, f)
		}
	}
	return all
}

// describe lists the pairs for a reader.
func (p pairs) describe() string {
	var all []string
	for _, one := range p {
		all = append(all, fmt.Sprintf("%v in %v", one.inner, one.outer))
	}
	return strings.Join(all, ", ")
}

// errMixed is why the programs leave packets of one family in datagrams of the other.
var errMixed = errors.New("unwrapping them needs Linux 6.3 or newer")

// kernelPairs returns the pairs of a configuration that this host's programs take, and
// those that they leave to the path beneath.
func kernelPairs(c backend.Config, outer []inet.Family) (taken, left pairs, err error) {
	mixed, err := bpf.UnwrapsMixed()
	if err != nil {
		return nil, nil, err
	}
	for _, inner := range c.Inside() {
		for _, o := range outer {
			p := pair{inner, o}
			if inner == o || mixed {
				taken = append(taken, p)
			} else {
				left = append(left, p)
			}
		}
	}
	if taken == nil {
		return nil, left, fmt.Errorf("%s: %w", left.describe(), errMixed)
	}
	return taken, left, nil
}
