#!/bin/sh
# cilium/ebpf's QueryPrograms fails with ENOSPC while another program is attached.
#
# Package:  github.com/cilium/ebpf v0.22.0, from the Go module proxy. Needs root and Linux 6.6.
# Expected: QueryPrograms of an interface returns the programs that are attached, before or after
#           the change. Its comment knows that the number may change between its two system calls
#           (link/query.go: "attr.Count might have changed").
# Seen:     the first call returns the number, the second the programs. If another program was
#           attached in between, the second returns ENOSPC ("no space left on device"), and
#           QueryPrograms returns that.
# For us:   pkg/netdev repeats the query; TestLooksWhileOthersCome of backend/udp/bpf attaches
#           another program all the time.
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

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func attach(p *ebpf.Program) link.Link {
	l, err := link.AttachTCX(link.TCXOptions{Interface: 1, Program: p, Attach: ebpf.AttachTCXIngress})
	check(err)
	return l
}

func program() *ebpf.Program {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}})
	check(err)
	return p
}

func main() {
	attach(program()) // an empty chain needs no second call
	other := program()
	go func() {
		for {
			check(attach(other).Close())
		}
	}()
	for range 1_000_000 {
		if _, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXIngress}); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println("no error")
}
END
export GOFLAGS=-mod=mod GOPATH="$dir/go"
go mod init example.org/query >/dev/null 2>&1
go get github.com/cilium/ebpf@v0.22.0 >/dev/null 2>&1
go build -o query .
got=$(unshare --net ./query)
want='query programs: no space left on device'
echo "github.com/cilium/ebpf v0.22.0: $got"
if [ "$got" != "$want" ]; then
	echo "changed, was: $want" >&2
	exit 1
fi
