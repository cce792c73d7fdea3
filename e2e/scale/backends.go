package main

import (
	"encoding/json"
	"fmt"

	"github.com/coreos/flannel/subnet"
)

// kind is a backend and data path that a daemon is measured with.
type kind struct {
	// backendType is in the configuration; flags are the daemon's.
	backendType string
	flags       []string
	// attrs returns the attributes of host i's lease.
	attrs func(i int) subnet.Attrs
	// onLink: the other hosts are on the uplink's own link. Each pinged host takes
	// an entry of the kernel's neighbour table, which all namespaces share. Its
	// default size is 1024 (net.ipv4.neigh.default.gc_thresh3); beyond that, the
	// whole machine loses packets.
	onLink bool
}

var kinds = map[string]kind{
	"udp-plain":   {backendType: "udp", flags: []string{"-udp-datapath=plain"}, attrs: plain},
	"udp-offload": {backendType: "udp", flags: []string{"-udp-datapath=offload"}, attrs: plain},
	"udp-kernel": {backendType: "udp", flags: []string{"-udp-datapath=kernel"}, attrs: func(i int) subnet.Attrs {
		a := plain(i)
		a.DataPath = "kernel"
		return a
	}},
	"host-gw": {backendType: "host-gw", onLink: true, attrs: func(i int) subnet.Attrs {
		a := plain(i)
		a.BackendType = "host-gw"
		return a
	}},
	"vxlan": {backendType: "vxlan", attrs: func(i int) subnet.Attrs {
		a := plain(i)
		a.BackendType = "vxlan"
		a.BackendData = json.RawMessage(fmt.Sprintf(`{"VNI":1,"VtepMAC":"0a:00:00:%02x:%02x:%02x"}`, byte(i>>16), byte(i>>8), byte(i)))
		return a
	}},
}

func plain(i int) subnet.Attrs { return subnet.Attrs{PublicIP: hostAddr(i)} }
