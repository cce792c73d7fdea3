package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	log "github.com/golang/glog"
)

// conn sends and receives ICMP messages of one identifier, or of all, for who
// waits for each answer.
type conn struct {
	net.PacketConn
	raw bool
}

func (c conn) addr(to netip.Addr) net.Addr {
	if c.raw {
		return &net.IPAddr{IP: to.AsSlice()}
	}
	return &net.UDPAddr{IP: to.AsSlice()}
}

func dial(source netip.Addr) (conn, error) {
	fd, raw, err := open(source)
	if err != nil {
		return conn{}, err
	}
	f := os.NewFile(uintptr(fd), "ping")
	defer f.Close() // FilePacketConn has a duplicate
	c, err := net.FilePacketConn(f)
	if err != nil {
		return conn{}, fmt.Errorf("open a socket for pings: %w", err)
	}
	return conn{c, raw}, nil
}

// receive gives take each message and who sent it, until ctx ends, which gives
// nil, or the socket fails. The message is take's until it returns.
func receive(ctx context.Context, c conn, take func(message []byte, from netip.Addr)) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
			return fmt.Errorf("receive echo replies: %w", err)
		case err != nil: // an ICMP error about an earlier request
			log.V(2).Infof("receive echo replies: %v", err)
		default:
			take(buf[:n], source(from))
		}
	}
}

func source(from net.Addr) netip.Addr {
	var ip net.IP
	switch a := from.(type) {
	case *net.UDPAddr:
		ip = a.IP
	case *net.IPAddr:
		ip = a.IP
	}
	addr, _ := netip.AddrFromSlice(ip.To4())
	return addr
}
