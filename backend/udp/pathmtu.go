package udp

import (
	"fmt"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// pathMTUs asks the kernel for the MTU of paths to peers. Its socket sends
// nothing; it is opened together with the others, so that it asks in the same
// network namespace from whatever thread.
type pathMTUs struct {
	mu   sync.Mutex // guards what the socket is connected to
	sock *os.File
}

func openPathMTUs(local netip.Addr) (*pathMTUs, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket for path MTUs: %w", err)
	}
	m := &pathMTUs{sock: os.NewFile(uintptr(fd), "path MTUs")}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: local.As4()}); err != nil {
		m.close()
		return nil, fmt.Errorf("bind socket for path MTUs to %v: %w", local, err)
	}
	return m, nil
}

// to is the kernel's present estimate of the path to a peer, in bytes: the
// route's MTU, or less where a router on the way has said so. It is fallback
// where the kernel does not tell.
func (m *pathMTUs) to(peer netip.AddrPort, fallback int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	mtu := fallback
	raw, err := m.sock.SyscallConn()
	if err != nil {
		return mtu
	}
	err = raw.Control(func(fd uintptr) {
		// Connecting a datagram socket looks up the route and sends nothing.
		to := &unix.SockaddrInet4{Port: int(peer.Port()), Addr: peer.Addr().As4()}
		if unix.Connect(int(fd), to) != nil {
			return
		}
		if n, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU); err == nil {
			mtu = n
		}
	})
	if err != nil {
		return fallback
	}
	return mtu
}

func (m *pathMTUs) close() error { return m.sock.Close() }
