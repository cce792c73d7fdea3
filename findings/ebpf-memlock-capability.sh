#!/bin/sh
# Without CAP_BPF, cilium/ebpf's RemoveMemlock takes a new kernel for one before Linux 5.11.
#
# Package:  github.com/cilium/ebpf v0.22.0 (rlimit), from the Go module proxy.
# Expected: on Linux 5.11 and newer RemoveMemlock "is a no-op" (rlimit_linux.go), also if the process
#           may not use BPF.
# Seen:     its test makes a map, and takes EPERM for an exhausted limit of locked memory. A process
#           without CAP_BPF gets EPERM, too. Then RemoveMemlock sets the limit: with CAP_SYS_RESOURCE
#           it removes the process's limit for nothing, without it fails with "failed to set memlock
#           rlimit", which hides the missing CAP_BPF.
# For us:   backend/udp/bpf ignores the error of RemoveMemlock, and explains the EPERM of the load.
#
# Exit code 0: as seen. 1: the behaviour has changed.
# Needs root, to give capabilities up, and Linux 5.11 or newer.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'END'
package main

import (
	"fmt"

	"github.com/cilium/ebpf/rlimit"
)

func main() { fmt.Println(rlimit.RemoveMemlock()) }
END
cat >go.mod <<'END'
module finding

go 1.26.0

require github.com/cilium/ebpf v0.22.0
END
GOFLAGS=-mod=mod go mod tidy >/dev/null 2>&1
GOFLAGS=-mod=mod CGO_ENABLED=0 go build -o finding .
with=$(setpriv --bounding-set=-all,+net_admin,+bpf,+perfmon ./finding)
without=$(setpriv --bounding-set=-all,+net_admin,+perfmon ./finding)
echo "with CAP_BPF: $with"
echo "without: $without"
[ "$with" = "<nil>" ]
case $without in
*"set memlock rlimit"*) exit 0 ;;
*) exit 1 ;;
esac
