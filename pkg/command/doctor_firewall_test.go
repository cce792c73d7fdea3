package command

import (
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// TestFirewallReadsUDPAlone: a rule for the same port of TCP drops none of our packets.
func TestFirewallReadsUDPAlone(t *testing.T) {
	for protocol, want := range map[byte]int{unix.IPPROTO_UDP: 8285, unix.IPPROTO_TCP: -1} {
		from, to, verdict := portsAndVerdict(&nftables.Rule{Exprs: []expr.Any{ // as nft(8) makes them
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{8285 >> 8, 8285 & 0xff}},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
		if from != want || to != want || verdict != expr.VerdictDrop {
			t.Errorf("protocol %d: ports %d to %d, verdict %v; want port %d dropped", protocol, from, to, verdict, want)
		}
	}
}
