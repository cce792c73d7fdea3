package bpf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

// open makes the TUN and the socket; it runs inside the host.
func (h *host) open() error {
	fd, err := netnstest.OpenTUN(deviceName)
	if err != nil {
		return err
	}
	h.tun = fd
	i, err := net.InterfaceByName(deviceName)
	if err != nil {
		return err
	}
	h.device = i.Index
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
			if h.outer == inet.IPv4 {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO))
				return
			}
			err = errors.Join(err,
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_DO),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX, 1))
		}), err)
	}}
	s, err := lc.ListenPacket(context.Background(), "udp", netip.AddrPortFrom(h.local(), port).String())
	if err != nil {
		return err
	}
	h.socket = s.(*net.UDPConn)
	return nil
}

// carryOut sends the TUN's packets to the peer of their destination.
func (h *host) carryOut() {
	packet := make([]byte, 1<<16)
	for {
		n, err := h.tun.Read(packet)
		if err != nil {
			return
		}
		to := destinationOf(packet[:n])
		if inet.Of(to) != h.families.inner || to.IsMulticast() {
			continue
		}
		h.sent.Add(1)
		begin := fmt.Sprintf("% x", packet[:min(n, 64)])
		h.lastSent.Store(&begin)
		h.mu.Lock()
		if h.oddOut != nil {
			h.oddOut(packet[:n])
			h.mu.Unlock()
			continue
		}
		for _, p := range h.peers {
			if p.Subnet.Contains(to) {
				// A failed send is a lost packet.
				_, _ = h.socket.WriteToUDPAddrPort(packet[:n], netip.AddrPortFrom(p.Addrs[p.Outer], port))
				break
			}
		}
		h.mu.Unlock()
	}
}

// destinationOf returns the destination of a packet.
func destinationOf(packet []byte) netip.Addr {
	if packet[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(packet[16:20]))
	}
	return netip.AddrFrom16([16]byte(packet[24:40]))
}

// carryIn writes the socket's packets to the TUN. As in the classic receiver, its buffer
// cuts larger datagrams.
func (h *host) carryIn() {
	packet := make([]byte, h.mtu())
	for {
		n, err := h.socket.Read(packet)
		if err != nil {
			return
		}
		h.received.Add(1)
		h.mu.Lock()
		odd := h.odd
		h.mu.Unlock()
		if odd != nil {
			odd(packet[:n])
		} else {
			_, _ = h.tun.Write(packet[:n])
		}
	}
}
