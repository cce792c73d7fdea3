package udp

import (
	"fmt"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// pathMTUs reads the kernel's MTUs of paths to peers. Its socket sends nothing. It
// fixes the network namespace, so any thread may call to.
type pathMTUs struct {
	mu   sync.Mutex // guards the socket's peer
	sock *os.File
}

func openPathMTUs(local netip.Addr, vrf string) (*pathMTUs, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket for path MTUs: %w", err)
	}
	m := &pathMTUs{sock: os.NewFile(uintptr(fd), "path MTUs")}
	if vrf != "" {
		if err := unix.BindToDevice(fd, vrf); err != nil {
			m.close()
			return nil, fmt.Errorf("bind socket for path MTUs to %s: %w", vrf, err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: local.As4()}); err != nil {
		m.close()
		return nil, fmt.Errorf("bind socket for path MTUs to %v: %w", local, err)
	}
	return m, nil
}

// to returns the kernel's MTU of the path to a peer, in bytes: the route's, or
// less if a router has reported less. It returns fallback if the kernel has none.
func (m *pathMTUs) to(peer netip.AddrPort, fallback int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	raw, err := m.sock.SyscallConn()
	if err != nil {
		return fallback
	}
	mtu := fallback
	err = raw.Control(func(fd uintptr) {
		// connect looks up the route and sends nothing.
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
