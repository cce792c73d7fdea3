// Package natchain finds and removes the rules that the plugins bridge and portmap have
// added for containers. In the table nat of iptables each container has chains of its own:
//
//	POSTROUTING       -s 10.1.17.2/32 … -j CNI-3ef5…        by bridge, with ipMasq
//	CNI-HOSTPORT-DNAT -p tcp --dports 8080 … -j CNI-DN-3ef… by portmap
//
// A jump has a comment with the network and the container. The chain's name is their hash,
// so that a jump of another program with such a comment is not taken for one of these.
//
// With nftables the rules of all containers are in portmap's chains.
package natchain

import (
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/containernetworking/plugins/pkg/utils"
	"github.com/coreos/go-iptables/iptables"
	"github.com/mattn/go-shellwords"
)

const table = "nat"

// portmapPrefix follows "CNI-" in the names of portmap's chains.
const portmapPrefix = "DN-"

// entries are the chains that jumps are in: of bridge, and of portmap.
var entries = []string{"POSTROUTING", "CNI-HOSTPORT-DNAT"}

// comment is that of a jump.
var comment = regexp.MustCompile(`^(?:dnat )?name: "([^"]+)" id: "([^"]+)"$`)

// Chain is a chain of a container, and the jumps to it.
type Chain struct {
	Container string
	name      string
	jumps     []jump
	iptables  *iptables.IPTables
}

type jump struct {
	from string
	rule []string
}

// List returns the chains of a network's containers, of IPv4 and then of IPv6. It returns
// none of a family of which iptables is missing or cannot read the table, as on a host of
// nftables alone.
func List(network string) (all []Chain, err error) {
	for _, protocol := range []iptables.Protocol{iptables.ProtocolIPv4, iptables.ProtocolIPv6} {
		t, err := iptables.NewWithProtocol(protocol)
		if err != nil {
			continue
		}
		chains, err := t.ListChains(table)
		if err != nil {
			continue
		}
		for _, from := range entries {
			if !slices.Contains(chains, from) {
				continue
			}
			rules, err := t.List(table, from)
			if err != nil {
				return nil, fmt.Errorf("list the chain %s of the table %s: %w", from, table, err)
			}
			for _, rule := range rules {
				if c, ok := parse(rule, from, network); ok {
					c.iptables = t
					all = add(all, c)
				}
			}
		}
	}
	return all, nil
}

// add adds a chain. A jump more to a known one belongs to that: portmap has one for each
// protocol, and for each 15 ports.
func add(all []Chain, c Chain) []Chain {
	i := slices.IndexFunc(all, func(known Chain) bool { return known.name == c.name && known.iptables == c.iptables })
	if i < 0 {
		return append(all, c)
	}
	all[i].jumps = append(all[i].jumps, c.jumps...)
	return all
}

// parse returns the chain that a rule of `iptables -S` jumps to; false for one that is not
// of the network's containers.
func parse(rule, from, network string) (Chain, bool) {
	words, err := shellwords.Parse(rule)
	if err != nil || len(words) < 3 { // -A CHAIN, and the rule
		return Chain{}, false
	}
	of, to := comment.FindStringSubmatch(after(words, "--comment")), after(words, "-j")
	if of == nil || of[1] != network {
		return Chain{}, false
	}
	if to != utils.FormatChainName(network, of[2]) && to != utils.MustFormatChainNameWithPrefix(network, of[2], portmapPrefix) {
		return Chain{}, false
	}
	return Chain{Container: of[2], name: to, jumps: []jump{{from, words[2:]}}}, true
}

// after returns the word after an option; "" without it.
func after(words []string, option string) string {
	if i := slices.Index(words, option); i >= 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}

// Remove removes the jumps, and then the chain. Those that are gone are no error.
func (c Chain) Remove() error {
	var errs []error
	for _, j := range c.jumps {
		errs = append(errs, c.iptables.DeleteIfExists(table, j.from, j.rule...))
	}
	if err := errors.Join(append(errs, c.iptables.ClearAndDeleteChain(table, c.name))...); err != nil {
		return fmt.Errorf("remove the chain %s of container %s from the table %s: %w", c.name, c.Container, table, err)
	}
	return nil
}
