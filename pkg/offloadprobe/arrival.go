package offloadprobe

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// hasArrived is the index of the receipt that confirms a SYN. A peer of an earlier
// release answers with the index of the question, 0.
const hasArrived = 1

// arrived asks a peer whether it has a SYN from a port of this host. The answer to the
// SYN is a packet of TCP, which a fault of the other direction may lose.
func (p *Prober) arrived(ctx context.Context, to *peer, port uint16) bool {
	for range suspicion {
		if result, _ := p.probeUDP(ctx, to, tcpArrival, port); result == passed || ctx.Err() != nil {
			return result == passed
		}
	}
	return false
}

// tcpStates are those of a connection whose SYN has arrived (enum in net/tcp_states.h).
const (
	tcpEstablished = 1
	tcpSynReceived = 3
)

// hasConnection reports whether the kernel of this host has a connection that another
// host has begun. The kernel has checked the checksum of its SYN.
func hasConnection(local, remote netip.AddrPort) (bool, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	req.AddData(connectionRequest{local, remote})
	answers, err := req.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if err != nil {
		return false, fmt.Errorf("look up connection of %v: %w", remote, err)
	}
	// Without the connection the answer is the listening socket.
	const state = 1 // of struct inet_diag_msg
	return len(answers) == 1 && len(answers[0]) > state &&
		(answers[0][state] == tcpSynReceived || answers[0][state] == tcpEstablished), nil
}

// connectionRequest is struct inet_diag_req_v2 (linux/inet_diag.h).
type connectionRequest struct{ local, remote netip.AddrPort }

// Offsets in struct inet_diag_req_v2, and its length.
const (
	requestProtocol  = 1
	requestStates    = 4
	requestPorts     = 8
	requestAddresses = 12
	requestCookie    = 48
	requestLen       = 56
)

// Len implements nl.NetlinkRequestData.
func (connectionRequest) Len() int { return requestLen }

// Serialize implements nl.NetlinkRequestData.
func (r connectionRequest) Serialize() []byte {
	b := make([]byte, requestLen)
	b[0], b[requestProtocol] = unix.AF_INET, unix.IPPROTO_TCP
	if inet.Of(r.local.Addr()) == inet.IPv6 {
		b[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(b[requestStates:], 1<<tcpEstablished|1<<tcpSynReceived)
	for i, end := range []netip.AddrPort{r.local, r.remote} {
		binary.BigEndian.PutUint16(b[requestPorts+2*i:], end.Port())
		copy(b[requestAddresses+16*i:], end.Addr().AsSlice())
	}
	const noCookie = ^uint64(0) // INET_DIAG_NOCOOKIE
	binary.NativeEndian.PutUint64(b[requestCookie:], noCookie)
	return b
}
