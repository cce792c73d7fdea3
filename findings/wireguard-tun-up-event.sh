#!/bin/sh
# wireguard-go's TUN reports that the interface is up although it is down.
#
# Package:  golang.zx2c4.com/wireguard v0.0.0-20260522210424-ecfc5a8d5446 (tun), from the Go module proxy.
# Expected: after CreateTUN no EventUp comes before the interface is set up.
# Seen:     EventUp comes at once. routineHackListener (tun_linux.go) writes no bytes, and takes EINVAL
#           for "up" and EIO for "down". With a vnet header, which CreateTUN asks for, the kernel
#           returns EINVAL for the short write before it looks at the state (tun_get_user,
#           drivers/net/tun.c).
# For us:   device.Device opens its sockets on that event, in a goroutine of its own and so perhaps in
#           another network namespace. backend/wireguard opens them again in the thread that
#           configures the device (userspaceTunnel.configure).
#
# Exit code 0: as seen. 1: the behaviour has changed.
# Needs root and /dev/net/tun.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'END'
package main

import (
	"fmt"
	"net"
	"os"
	"time"

	"golang.zx2c4.com/wireguard/tun"
)

func main() {
	t, err := tun.CreateTUN("findingtun", 1420)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	defer t.Close()
	select {
	case event := <-t.Events():
		i, err := net.InterfaceByName("findingtun")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		fmt.Printf("event up %v, interface up %v\n", event&tun.EventUp != 0, i.Flags&net.FlagUp != 0)
	case <-time.After(3 * time.Second):
		fmt.Println("no event")
	}
}
END
cat >go.mod <<'END'
module finding

go 1.26.0

require golang.zx2c4.com/wireguard v0.0.0-20260522210424-ecfc5a8d5446
END
GOFLAGS=-mod=mod go mod tidy >/dev/null 2>&1
GOFLAGS=-mod=mod CGO_ENABLED=0 go build -o finding .
seen=$(unshare -n ./finding)
echo "$seen"
[ "$seen" = "event up true, interface up false" ]
