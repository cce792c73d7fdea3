package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/udpsock"
)

// pathMTUs reads the kernel's MTUs of paths to peers. Its sockets, one for each family
// of our datagrams, send nothing. They fix the network namespace, so any thread may
// call to.
type pathMTUs struct {
	mu    sync.Mutex // guards the sockets' peers
	socks [2]*os.File
}

// openPathMTUs opens the sockets at these addresses, by family; one that is not valid
// has none.
func openPathMTUs(locals [2]netip.AddrPort, uplinks [2]string) (*pathMTUs, error) {
	m := new(pathMTUs)
	for f, local := range locals {
		if !local.IsValid() {
			continue
		}
		if err := m.open(inet.Family(f), local.Addr(), uplinks[f]); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	return m, nil
}

func (m *pathMTUs) open(f inet.Family, local netip.Addr, vrf string) error {
	fd, err := unix.Socket(f.AF(), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open socket for path MTUs: %w", err)
	}
	m.socks[f] = os.NewFile(uintptr(fd), "path MTUs")
	if vrf != "" {
		if err := unix.BindToDevice(fd, vrf); err != nil {
			return fmt.Errorf("bind socket for path MTUs to %s: %w", vrf, err)
		}
	}
	if err := unix.Bind(fd, udpsock.Sockaddr(netip.AddrPortFrom(local, 0))); err != nil {
		return fmt.Errorf("bind socket for path MTUs to %v: %w", local, err)
	}
	return nil
}

// to returns the kernel's MTU of the path to a peer, in bytes: the route's, or
// less if a router has reported less. It returns fallback if the kernel has none.
func (m *pathMTUs) to(peer netip.AddrPort, fallback int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := inet.Of(peer.Addr())
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if f == inet.IPv6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	raw, err := m.socks[f].SyscallConn()
	if err != nil {
		return fallback
	}
	mtu := fallback
	err = raw.Control(func(fd uintptr) {
		// connect looks up the route and sends nothing.
		if unix.Connect(int(fd), udpsock.Sockaddr(peer)) != nil {
			return
		}
		if n, err := unix.GetsockoptInt(int(fd), level, option); err == nil {
			mtu = n
		}
	})
	if err != nil {
		return fallback
	}
	return mtu
}

func (m *pathMTUs) close() error {
	var errs []error
	for _, s := range m.socks {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}
