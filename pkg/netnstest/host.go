package netnstest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Host is a network namespace. Its methods may be called from any goroutine,
// but those that change the host and return no error end the scope where they
// fail, and so are for the scope's goroutine.
type Host struct {
	lab  *Lab
	name string // within the lab
	full string // below /run/netns
	ns   netns.NsHandle
	nl   *netlink.Handle
	addr netip.Prefix
}

// Name is what the lab calls the host.
func (h *Host) Name() string { return h.name }

// Netns is the namespace's name for "ip netns exec".
func (h *Host) Netns() string { return h.full }

// Addr is the host's address on the lab's switch with its prefix length; zero
// for a bare namespace.
func (h *Host) Addr() netip.Prefix { return h.addr }

// Netlink is a route netlink handle inside the host. It goes with the lab.
func (h *Host) Netlink() *netlink.Handle { return h.nl }

// Do runs f inside the host, on the calling goroutine. Files, sockets and
// processes that f opens stay inside; goroutines that f starts do not run
// inside. The files of /proc/sys/net are those of the host, and
// /proc/thread-self/net must be read for /proc/net.
func (h *Host) Do(f func() error) error { return within(h.ns, f) }

// Dial connects from inside the host. The address must be a literal one: a
// name would be looked up on goroutines that are not inside.
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

// HTTP is a client whose connections are made inside the host, one for each
// request.
func (h *Host) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true}}
}

// Sysctl writes a kernel parameter of the host, named like net.ipv4.ip_forward.
func (h *Host) Sysctl(key, value string) {
	h.lab.scope.Helper()
	path := filepath.Join("/proc/sys", filepath.FromSlash(strings.ReplaceAll(key, ".", "/")))
	if err := h.Do(func() error { return os.WriteFile(path, []byte(value), 0) }); err != nil {
		h.lab.scope.Fatalf("host %s: set %s=%s: %v", h.name, key, value, err)
	}
}

// HasLink reports whether the host has an interface of that name.
func (h *Host) HasLink(name string) bool {
	h.lab.scope.Helper()
	_, err := h.nl.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return false
	}
	if err != nil {
		h.lab.scope.Fatalf("host %s: look for interface %s: %v", h.name, name, err)
	}
	return true
}
