#!/bin/sh
# A TUN device with two queues gets 256 qdiscs, of which two are listed; they may take 50 MB.
#
# Package:  github.com/vishvananda/netlink v1.3.1, from the Go module proxy. Needs root. Seen on
#           Linux 6.18 and 7.3.
# Expected: a device with two queues of 8192 packets takes two rings of 8192 pointers: 128 KiB.
# Seen:     IFF_MULTI_QUEUE makes a device that may get 256 queues (MAX_TAP_QUEUES,
#           drivers/net/tun.c). The default qdisc mq gives each of the 256 a pfifo_fast
#           (mq_init, net/sched/sch_mq.c), which has three rings of txqueuelen pointers
#           (pfifo_fast_init, net/sched/sch_generic.c): 256 * 3 * 8192 * 8 bytes = 48 MiB. No
#           process has them in its size, and RTM_GETQDISC lists those of the two queues in use
#           alone; /proc/meminfo has them in SUnreclaim.
# For us:   backend/udp gives its device "noqueue" as root (TestQueues). Packets wait in the
#           rings of the two queues.
#
# Exit code 0: as seen. 1: the behaviour has changed.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'END'
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

// unreclaimable returns SUnreclaim of /proc/meminfo, in KiB.
func unreclaimable() (n int) {
	text, err := os.ReadFile("/proc/meminfo")
	check(err)
	_, rest, _ := strings.Cut(string(text), "SUnreclaim:")
	_, err = fmt.Sscan(rest, &n)
	check(err)
	return n
}

func main() {
	length := 8192
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.TxQLen = "t0", length
	t := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TUN, Queues: 2, Flags: netlink.TUNTAP_MULTI_QUEUE_DEFAULTS}
	check(netlink.LinkAdd(t))
	l, err := netlink.LinkByName("t0")
	check(err)
	check(netlink.LinkSetTxQLen(l, length))
	before := unreclaimable()
	check(netlink.LinkSetUp(l))
	after := unreclaimable()
	qdiscs, err := netlink.QdiscList(l)
	check(err)
	children := 0
	for _, q := range qdiscs {
		if q.Type() == "pfifo_fast" {
			children++
		}
	}
	fmt.Fprintf(os.Stderr, "memory of the kernel: %d KiB more\n", after-before)
	fmt.Printf("queues: 2, qdiscs listed: %d, more than 40 MiB: %t\n", children, after-before > 40<<10)
}
END
export GOFLAGS=-mod=mod GOPATH="$dir/go"
go mod init example.org/queues >/dev/null 2>&1
go get github.com/vishvananda/netlink@v1.3.1 >/dev/null 2>&1
go build -o queues .
got=$(unshare --net ./queues)
want='queues: 2, qdiscs listed: 2, more than 40 MiB: true'
echo "github.com/vishvananda/netlink v1.3.1: $got"
if [ "$got" != "$want" ]; then
	echo "changed, was: $want" >&2
	exit 1
fi
