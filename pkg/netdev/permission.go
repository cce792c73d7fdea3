package netdev

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// NeedsNetAdmin is the remedy for a process without CAP_NET_ADMIN.
const NeedsNetAdmin = "the daemon needs the capability CAP_NET_ADMIN: run it as root, or give it AmbientCapabilities=CAP_NET_ADMIN (systemd) or --cap-add=NET_ADMIN (docker)"

// ExplainPermission adds the remedy to EPERM. The kernel answers so to a change by a
// process without CAP_NET_ADMIN in the user namespace that owns the network namespace
// (rtnetlink_rcv_msg in net/core/rtnetlink.c, nfnetlink_rcv in net/netfilter/nfnetlink.c).
func ExplainPermission(err error) error {
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	return fmt.Errorf("%w; %s", err, NeedsNetAdmin)
}
