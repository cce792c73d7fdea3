package nftbatch

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The errors of a kernel without nftables have the command that loads it.
func TestExplain(t *testing.T) {
	for err, want := range map[error]bool{
		unix.EPROTONOSUPPORT: true, unix.EOPNOTSUPP: true, unix.EINVAL: true, unix.ENOENT: true, unix.EPERM: false, unix.ENOBUFS: false,
	} {
		got := Explain(err, "nf_tables", "nft_ct")
		if !errors.Is(got, err) || strings.Contains(got.Error(), `"modprobe -a nf_tables nft_ct"`) != want {
			t.Errorf("%v: %v", err, got)
		}
		if strings.Contains(got.Error(), "CAP_NET_ADMIN") != (err == unix.EPERM) {
			t.Errorf("%v: %v", err, got)
		}
	}
}
