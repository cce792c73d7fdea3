#!/bin/sh
# An IPv6 network of 32 bits or less in an IPsec policy reads back as an IPv4 address.
#
# Package:  github.com/vishvananda/netlink v1.3.1, from the Go module proxy.
# Expected: XfrmPolicyList gives the policy for 2001:db8::/32 as XfrmPolicyAdd took it, as ip(8) does.
# Seen:     XfrmAddress.ToIPNet (nl/xfrm_linux.go) goes by the address alone: one whose last 96 bits
#           are zero is IPv4, 32.1.13.184/32 here. A length above 32 then has no mask: 2001:db8::/48
#           reads back as "<nil>". The policy's family is at hand, but counts for ::/0 only.
# For us:   pkg/hostrules compares the first 32 bits of such a network with a peer's address.
#
# Exit code 0: as seen. 1: the behaviour has changed.
# Needs root, for a network namespace with a policy, and ip(8).
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'END'
package main

import (
	"fmt"
	"log"

	"github.com/vishvananda/netlink"
)

func main() {
	all, err := netlink.XfrmPolicyList(netlink.FAMILY_V6)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range all {
		fmt.Println(p.Dst)
	}
}
END
cat >go.mod <<'END'
module finding

go 1.26.0

require github.com/vishvananda/netlink v1.3.1
END
GOFLAGS=-mod=mod go mod tidy >/dev/null 2>&1
GOFLAGS=-mod=mod CGO_ENABLED=0 go build -o finding .
# shellcheck disable=SC2016 # the inner shell expands
seen=$(unshare -n sh -c '
	for dst in 2001:db8::/32 2001:db8::/48 2001:db8:0:1::/64; do
		ip xfrm policy add src ::/0 dst $dst dir out action block
	done
	ip xfrm policy show | grep "dst 2001" >&2
	./finding | sort')
echo "$seen"
[ "$seen" = "$(printf '%s\n' 2001:db8:0:1::/64 32.1.13.184/32 '<nil>' | sort)" ]
