package nftbatch

import (
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Flush sends no batch to a kernel without nf_tables, which would not answer each message.
func TestFlushWithoutNFTables(t *testing.T) {
	const list = netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETTABLE)
	c, err := nftables.New(nftables.WithTestDial(func(requests []netlink.Message) ([]netlink.Message, error) {
		for _, m := range requests {
			if m.Header.Type != list {
				t.Errorf("message of type %v, want the list of tables alone", m.Header.Type)
			}
		}
		return nil, unix.EINVAL
	}))
	if err != nil {
		t.Fatal(err)
	}
	c.AddTable(&nftables.Table{Name: "ours"})
	if err := Flush(c); !Lacking(err) {
		t.Errorf("the error is %v", err)
	}
}
