package main

import (
	"cmp"
	"errors"
	"fmt"
)

// condition is a state of hosts that a kernel's line does not imply.
type condition struct {
	name string
	// append has arguments of the kernel. guest/init.sh reads those that begin with
	// "guest.".
	append string
	memory int    // MiB; 0: as usual
	tests  string // pattern; "": conditionTests
}

// conditions are those of users' hosts. Unprivileged BPF is off everywhere: Debian's
// kernels begin with kernel.unprivileged_bpf_disabled=2.
var conditions = []condition{
	{name: "no-ipv6", append: "ipv6.disable=1"},
	{name: "no-btf", append: "guest.btf=0"},
	{name: "cgroup-v1", append: "guest.cgroup=1"},
	{name: "lockdown", append: "lockdown=confidentiality"},
	{name: "little-memory", memory: 256},
	{name: "mitigations", append: "mitigations=auto"},
	{name: "br-netfilter", append: "guest.modules=br_netfilter"},
	{name: "no-modules", append: "guest.without=wireguard,vxlan,nft_masq,sch_ingress", tests: "^Test(MissingModules|ModulesToDoWithout)$"},
	{name: "no-conntrack", append: "guest.without=nf_conntrack", tests: "^TestMissingConntrack$"},
	{name: "no-nftables", append: "guest.without=nf_tables", tests: "^Test(MissingNFTables|MissingModules)$"},
}

// conditionTests carry packets in each way, by a flowtable and through a restart. Those of
// what a kernel lacks are about the message.
const conditionTests = "^Test(Flowtable|BridgeNetfilter|MissingConntrack|MissingIPv6)$"

// under returns o for a guest in a condition.
func (c condition) under(o options) options {
	o.append += " " + c.append
	if c.memory != 0 {
		o.memory = c.memory
	}
	o.run = cmp.Or(o.run, c.tests, conditionTests)
	o.suffix, o.page = "-"+c.name, nil // the table is of hosts as usual
	return o
}

// each calls do once, or once in each condition.
func (o options) each(do func(options) error) error {
	if !o.conditions {
		return do(o)
	}
	var errs []error
	for _, c := range conditions {
		if err := do(c.under(o)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
	}
	return errors.Join(errs...)
}
