package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of linux/xfrm.h, which x/sys/unix lacks.
const (
	xfrmMsgGetPolicy = 0x15
	xfrmGroupPolicy  = 4 // XFRMNLGRP_POLICY
	xfrmPolicyLen    = 168

	// Offsets in struct xfrm_userpolicy_info.
	xfrmTarget       = 0
	xfrmSource       = 16
	xfrmFamily       = 40
	xfrmTargetPrefix = 42
	xfrmSourcePrefix = 43
	xfrmDir          = 160

	xfrmDirs = 3 // in, out and forward; those of sockets have higher numbers
)

// ipsecPolicies names the IPsec policies that may match packets within network.
// It runs in the network namespace of the device.
func ipsecPolicies(network netip.Prefix) ([]string, error) {
	conn, err := netlink.Dial(unix.NETLINK_XFRM, nil)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil // a kernel without IPsec
	}
	if err != nil {
		return nil, fmt.Errorf("list IPsec policies: %w", err)
	}
	defer conn.Close()
	policies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: xfrmMsgGetPolicy, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, 64), // struct xfrm_userpolicy_id
	})
	if err != nil {
		return nil, fmt.Errorf("list IPsec policies: %w", err)
	}
	var found []string
	for _, m := range policies {
		b := m.Data
		if len(b) < xfrmPolicyLen || b[xfrmDir] >= xfrmDirs || binary.NativeEndian.Uint16(b[xfrmFamily:]) == unix.AF_INET6 {
			continue
		}
		source := netip.PrefixFrom(netip.AddrFrom4([4]byte(b[xfrmSource:])), int(b[xfrmSourcePrefix]))
		target := netip.PrefixFrom(netip.AddrFrom4([4]byte(b[xfrmTarget:])), int(b[xfrmTargetPrefix]))
		if source.Overlaps(network) && target.Overlaps(network) {
			found = append(found, fmt.Sprintf("IPsec policy from %v to %v", source, target))
		}
	}
	return found, nil
}
