package e2e

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// capture holds every frame that leaves a host's uplink.
type capture struct {
	sock *socket.Conn
	done chan struct{}

	mu     sync.Mutex
	frames [][]byte
}

func startCapture(t *testing.T, n *node) *capture {
	t.Helper()
	c := &capture{done: make(chan struct{})}
	link, err := n.Netlink().LinkByName(netnstest.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	// Protocols in sockaddr_ll are in network byte order (packet(7)).
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	err = n.Do(func() (err error) {
		// With a protocol, it would receive from all devices until it is bound.
		c.sock, err = socket.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0, "packet", nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.end() })
	if err := errors.Join(c.sock.SetReadBuffer(64<<20), c.sock.Bind(&unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index})); err != nil {
		t.Fatal(err)
	}
	go c.run(t)
	return c
}

func (c *capture) run(t *testing.T) {
	defer close(c.done)
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.sock.Recvfrom(t.Context(), buf, 0)
		if err != nil {
			return // closed
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
			c.mu.Lock()
			c.frames = append(c.frames, slices.Clone(buf[:n]))
			c.mu.Unlock()
		}
	}
}

// mustHold waits until the frames so far satisfy check.
func (c *capture) mustHold(t *testing.T, check func([][]byte) error) {
	t.Helper()
	eventually(t, "capture", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		return check(c.frames)
	})
}

// end stops the capture and returns the frames.
func (c *capture) end() [][]byte {
	c.sock.Close()
	<-c.done
	return c.frames
}
