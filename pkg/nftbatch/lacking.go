package nftbatch

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
)

// Lacking reports whether an error is that of a kernel without nftables. Without
// nfnetlink it has no such socket, and without nf_tables no such messages: a batch gets
// EOPNOTSUPP, and another message EINVAL (nfnetlink_rcv_batch and nfnetlink_rcv_msg,
// net/netfilter/nfnetlink.c).
func Lacking(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

// Explain adds the remedy to the error of rules if the kernel may lack modules of
// nftables, or the process a capability. Without that of an expression, a rule names an object that does not exist.
func Explain(err error, modules ...string) error {
	if !Lacking(err) && !errors.Is(err, unix.ENOENT) {
		return netdev.ExplainPermission(err)
	}
	return fmt.Errorf("%w: the kernel may lack nftables, or a part of it; load it with \"modprobe -a %s\"", err, strings.Join(modules, " "))
}
