package main

import (
	"encoding/json"
	"fmt"

	"github.com/coreos/flannel/subnet"
)

// kind is a way of carrying packets that a daemon is measured with.
type kind struct {
	// backendType is the configuration's, flags are the daemon's.
	backendType string
	flags       []string
	// attrs is what the lease of host i tells.
	attrs func(i int) subnet.Attrs
	// onLink: the other hosts are on the uplink's own link. Each that is pinged is
	// an entry in the kernel's table of neighbours, which all namespaces of the
	// machine share, and of which there are 1024 unless it is told otherwise
	// (net.ipv4.neigh.default.gc_thresh3). With more, the rest of the machine
	// loses packets.
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
