package netnstest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Host is a network namespace. Its methods are safe for concurrent use. Those that
// change the host and return no error end the scope if they fail, so only the
// scope's goroutine may call them.
type Host struct {
	lab  *Lab
	name string // within the lab
	full string // below /run/netns
	ns   netns.NsHandle
	nl   *netlink.Handle
	addr netip.Prefix
	// addr6 is that of a DualHost, or of AddIPv6.
	addr6 netip.Prefix
}

// Name is the host's name in the lab.
func (h *Host) Name() string { return h.name }

// Netns is the namespace's name for "ip netns exec".
func (h *Host) Netns() string { return h.full }

// Addr is the host's address on the lab's switch with its prefix length; zero
// for a bare namespace.
func (h *Host) Addr() netip.Prefix { return h.addr }

// IPv6Addr is the host's IPv6 address with its prefix length; zero if it has none.
func (h *Host) IPv6Addr() netip.Prefix { return h.addr6 }

// Netlink is a route netlink handle inside the host. The lab closes it.
func (h *Host) Netlink() *netlink.Handle { return h.nl }

// Do runs f inside the host, on the calling goroutine. Files, sockets and processes
// that f opens stay inside; goroutines that f starts are outside. /proc/sys/net is
// the host's. For /proc/net, f must read /proc/thread-self/net.
func (h *Host) Do(f func() error) error { return within(h.ns, f) }

// Dial connects from inside the host. The address must not be a name: goroutines
// outside the host would look it up.
func (h *Host) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = h.Do(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen opens a stream listener inside the host.
func (h *Host) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = h.Do(func() error {
		var c net.ListenConfig
		l, err = c.Listen(ctx, network, address)
		return err
	})
	return l, err
}

// ListenPacket opens a datagram socket inside the host.
func (h *Host) ListenPacket(ctx context.Context, network, address string) (p net.PacketConn, err error) {
	err = h.Do(func() error {
		var c net.ListenConfig
		p, err = c.ListenPacket(ctx, network, address)
		return err
	})
	return p, err
}

// HTTP returns a client that connects inside the host, anew for each request.
func (h *Host) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true}}
}

// Sysctl writes a kernel parameter of the host, named like net.ipv4.ip_forward.
func (h *Host) Sysctl(key, value string) {
	h.lab.scope.Helper()
	path := filepath.Join("/proc/sys", filepath.FromSlash(strings.ReplaceAll(key, ".", "/")))
	h.check(h.Do(func() error { return os.WriteFile(path, []byte(value), 0) }), "set %s=%s", key, value)
}

// HasLink reports whether the host has an interface of that name.
func (h *Host) HasLink(name string) bool {
	h.lab.scope.Helper()
	_, err := h.nl.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return false
	}
	h.check(err, "look for interface %s", name)
	return true
}

// check ends the scope if err is not nil.
func (h *Host) check(err error, format string, args ...any) {
	h.lab.scope.Helper()
	if err != nil {
		h.lab.scope.Fatalf("host %s: %s: %v", h.name, fmt.Sprintf(format, args...), err)
	}
}
