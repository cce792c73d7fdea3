package hostrules

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The errors of a kernel without nftables have the command that loads it.
func TestExplainLacking(t *testing.T) {
	for err, want := range map[error]bool{
		unix.EPROTONOSUPPORT: true, unix.EOPNOTSUPP: true, unix.EINVAL: true, unix.ENOENT: true, unix.EPERM: false, unix.ENOBUFS: false,
	} {
		got := ExplainLacking(err, "nf_tables", "nft_ct")
		if !errors.Is(got, err) || strings.Contains(got.Error(), `"modprobe -a nf_tables nft_ct"`) != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// Probe returns the error of a kernel without nf_tables.
func TestProbe(t *testing.T) {
	for _, answer := range []error{unix.EINVAL, nil} {
		c, err := nftables.New(nftables.WithTestDial(func([]netlink.Message) ([]netlink.Message, error) { return nil, answer }))
		if err != nil {
			t.Fatal(err)
		}
		if err := Probe(c); Lacking(err) != (answer != nil) {
			t.Errorf("with %v the error is %v", answer, err)
		}
	}
}
