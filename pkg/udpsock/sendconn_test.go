package udpsock

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// unresolved returns a namespace and an address whose MAC address never resolves: the
// kernel queues packets to it, and the send buffer fills.
func unresolved(t *testing.T) (h *netnstest.Host, to netip.AddrPort) {
	t.Helper()
	netnstest.Require(t)
	h = netnstest.New(t).Namespace("silent")
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near"}, PeerName: "far"}
	if err := h.Netlink().LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	h.AddAddr("near", netip.MustParsePrefix("192.0.2.1/24"))
	h.Up("near")
	h.Up("far")
	return h, netip.MustParseAddrPort("192.0.2.2:9")
}

// resolve sets the neighbour's MAC address, so that queued packets leave.
func resolve(t *testing.T, h *netnstest.Host, to netip.Addr) {
	t.Helper()
	near, err := h.Netlink().LinkByName("near")
	if err != nil {
		t.Fatal(err)
	}
	err = h.Netlink().NeighSet(&netlink.Neigh{
		LinkIndex: near.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		IP: to.AsSlice(), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// awaitFull returns when the send buffer is full. It fails if the sender ends before.
func awaitFull(t *testing.T, c *SendConn, ended <-chan error) {
	t.Helper()
	for len(ended) == 0 {
		var have, limit int
		err := c.control(func(fd int) (err error) {
			if limit, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err != nil {
				return err
			}
			have, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if have >= limit {
			return
		}
		runtime.Gosched()
	}
	t.Fatalf("sending ended before the buffer was full: %v", <-ended)
}

// A send with a full buffer continues when there is room, and ends after Wake and
// Close. This holds for SendConn and Sender.
func TestSendConnWaitsForRoom(t *testing.T) {
	const count = 200 // more than the buffer takes, less than the neighbour's queue does
	ways := map[string]func(c *SendConn, to netip.AddrPort) error{
		"SendConn": func(c *SendConn, to netip.AddrPort) error { return c.Send(make([]byte, 10), to) },
		"Sender": func(c *SendConn, to netip.AddrPort) error {
			s := NewSender(c)
			s.Add(NewDest(to), [][]byte{make([]byte, 10)}, 10, 1)
			results, err := s.Send()
			if err != nil {
				return err
			}
			return results[0].Err
		},
	}
	ends := map[string]struct {
		end  func(t *testing.T, h *netnstest.Host, c *SendConn, to netip.Addr) error
		want error
	}{
		"room": {func(t *testing.T, h *netnstest.Host, _ *SendConn, to netip.Addr) error {
			resolve(t, h, to)
			return nil
		}, nil},
		"Wake": {func(_ *testing.T, _ *netnstest.Host, c *SendConn, _ netip.Addr) error {
			return c.Wake()
		}, os.ErrDeadlineExceeded},
		"Close": {func(_ *testing.T, _ *netnstest.Host, c *SendConn, _ netip.Addr) error {
			return c.Close()
		}, net.ErrClosed},
	}
	for way, send := range ways {
		for name, end := range ends {
			t.Run(way+"/"+name, func(t *testing.T) {
				h, to := unresolved(t)
				var c *SendConn
				err := h.Do(func() (err error) {
					c, err = OpenSend(Config{Local: netip.MustParseAddrPort("0.0.0.0:0"), Buffer: 4096})
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				ended := make(chan error, 1)
				go func() {
					for range count {
						if err := send(c, to); err != nil {
							ended <- err
							return
						}
					}
					ended <- nil
				}()
				awaitFull(t, c, ended)
				if err := end.end(t, h, c, to.Addr()); err != nil {
					t.Fatal(err)
				}
				if err := <-ended; !errors.Is(err, end.want) {
					t.Errorf("sending ended with %v, want %v", err, end.want)
				}
				if end.want != nil {
					if err := send(c, to); !errors.Is(err, end.want) {
						t.Errorf("a later send: %v, want %v", err, end.want)
					}
				}
			})
		}
	}
}
