package rtnl

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/mdlayher/socket"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
)

const (
	// batchSize is how many requests go to the kernel at a time. The kernel
	// answers the last and those that fail. An answer takes some 800 bytes of
	// receive buffer, so a batch of failures fits into the default one.
	batchSize = 128
	// receiveSize exceeds the 32 KiB that the kernel puts into one datagram of a
	// dump (net/netlink/af_netlink.c, netlink_dump).
	receiveSize = 64 << 10
	// maxExtAck is how much of the kernel's explanation of an error we keep.
	maxExtAck = 200
)

// conn is a route netlink socket for requests. One goroutine may use it at a time.
type conn struct {
	sock    *socket.Conn
	seq     uint32
	in, out []byte
}

func dial() (*conn, error) {
	sock, err := socket.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, "rtnetlink", nil)
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	if err := sock.Bind(&unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind route netlink: %w", err), sock.Close())
	}
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		// An older kernel does without: less text, longer answers.
		if err := sock.SetsockoptInt(unix.SOL_NETLINK, option, 1); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
			return nil, errors.Join(fmt.Errorf("set netlink option %d: %w", option, err), sock.Close())
		}
	}
	return &conn{sock: sock, in: make([]byte, receiveSize)}, nil
}

// operation is one change of kernel state.
type operation struct {
	kind, flags uint16
	object      object
	// failed receives the kernel's error.
	failed func(error)
}

// object is a kernelRoute or a kernelNeigh.
type object interface {
	fmt.Stringer
	appendTo([]byte) []byte
}

func (o operation) String() string { return o.object.String() }

// do runs operations in their order. The error is that of the socket; the failure
// of an operation goes to its failed.
func (c *conn) do(ops []operation) error {
	for batch := range slices.Chunk(ops, batchSize) {
		if err := c.batch(batch); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) batch(ops []operation) error {
	first := c.seq + 1
	for i, op := range ops {
		flags := op.flags
		if i == len(ops)-1 {
			flags |= unix.NLM_F_ACK
		}
		c.add(op.kind, flags, op.object.appendTo)
	}
	if err := c.send(); err != nil {
		return err
	}
	for {
		answers, err := c.receive()
		if err != nil {
			return err
		}
		for _, m := range answers {
			i := int(m.Header.Seq - first)
			if m.Header.Type != unix.NLMSG_ERROR || i < 0 || i >= len(ops) {
				continue // the answer to an earlier request that failed
			}
			if err := errorOf(m); err != nil {
				ops[i].failed(err)
			}
			if i == len(ops)-1 {
				return nil
			}
		}
	}
}

// dump calls f with each entry of a table. Before an error it may have called f
// with a part of them. If the table changed during the dump (NLM_F_DUMP_INTR),
// entries may be missing or appear twice: the error is netlink.ErrDumpInterrupted.
func (c *conn) dump(kind uint16, request []byte, f func(body []byte)) error {
	c.add(kind, unix.NLM_F_DUMP, func(b []byte) []byte { return append(b, request...) })
	if err := c.send(); err != nil {
		return err
	}
	var interrupted error
	for {
		answers, err := c.receive()
		if err != nil {
			return err
		}
		for _, m := range answers {
			if m.Header.Seq != c.seq {
				continue
			}
			if m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
				interrupted = netlink.ErrDumpInterrupted
			}
			switch m.Header.Type {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				if err := errorOf(m); err != nil {
					return err
				}
				return interrupted
			default:
				f(m.Data)
			}
		}
	}
}

// add queues a request for send; body appends the part behind the header.
func (c *conn) add(kind, flags uint16, body func([]byte) []byte) {
	start := len(c.out)
	c.out = body(append(c.out, make([]byte, unix.SizeofNlMsghdr)...))
	c.seq++
	header := c.out[start:]
	native.PutUint32(header, uint32(len(header)))
	native.PutUint16(header[4:], kind)
	native.PutUint16(header[6:], flags|unix.NLM_F_REQUEST)
	native.PutUint32(header[8:], c.seq)
}

func (c *conn) send() error {
	_, err := c.sock.Write(c.out)
	c.out = c.out[:0]
	if err != nil {
		return fmt.Errorf("send to route netlink: %w", err)
	}
	return nil
}

// receive reads one datagram into c.in, and returns its messages.
func (c *conn) receive() ([]syscall.NetlinkMessage, error) {
	n, err := c.sock.Read(c.in)
	if err != nil {
		return nil, fmt.Errorf("receive from route netlink: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(c.in[:n])
	if err != nil {
		return nil, fmt.Errorf("parse answer of route netlink: %w", err)
	}
	return messages, nil
}

// errorOf returns the error in an NLMSG_ERROR or NLMSG_DONE, with the kernel's
// text if there is one. It returns nil for an acknowledgement.
func errorOf(m syscall.NetlinkMessage) error {
	code := int32(uint32Of(m.Data))
	if code >= 0 {
		return nil
	}
	errno := unix.Errno(-code)
	if errno == unix.EPERM {
		return netdev.ExplainPermission(errno)
	}
	if m.Header.Type != unix.NLMSG_ERROR || m.Header.Flags&unix.NLM_F_ACK_TLVS == 0 || m.Header.Flags&unix.NLM_F_CAPPED == 0 {
		return errno
	}
	// Behind a struct nlmsgerr, which holds the header of our request.
	for kind, value := range attributes(m.Data, 4+unix.SizeofNlMsghdr) {
		if text := bytes.TrimRight(value, "\x00"); kind == unix.NLMSGERR_ATTR_MSG && len(text) > 0 {
			return fmt.Errorf("%w (kernel: %s)", errno, text[:min(len(text), maxExtAck)])
		}
	}
	return errno
}

// routes reads the main table of the network's family. A strict dump filters by
// the table (NETLINK_GET_STRICT_CHK, Linux 4.20); an older kernel sends all.
func (c *conn) routes(s scope) ([]kernelRoute, error) {
	header := [unix.SizeofRtMsg]byte{0: addrFamily(s.config.Network.Addr()), 4: unix.RT_TABLE_MAIN}
	request := appendUint32(header[:], unix.RTA_TABLE, unix.RT_TABLE_MAIN)
	return list(c, nil, "routes", unix.RTM_GETROUTE, request, s.parseRoute)
}

// neighs appends the entries of one family on a link to others. A strict dump
// filters by the link.
func (c *conn) neighs(others []kernelNeigh, what string, family uint8, link int) ([]kernelNeigh, error) {
	header := [unix.SizeofNdMsg]byte{family}
	request := appendUint32(header[:], unix.NDA_IFINDEX, uint32(link))
	return list(c, others, what, unix.RTM_GETNEIGH, request, func(body []byte) (kernelNeigh, bool) {
		n, ok := parseNeigh(body)
		return n, ok && n.link == link && n.family == family
	})
}

// list appends the entries of a table that parse accepts to others.
func list[T any](c *conn, others []T, what string, kind uint16, request []byte, parse func(body []byte) (T, bool)) ([]T, error) {
	return RetryDump(what, func() ([]T, error) {
		all := others
		err := c.dump(kind, request, func(body []byte) {
			if v, ok := parse(body); ok {
				all = append(all, v)
			}
		})
		return all, err
	})
}
