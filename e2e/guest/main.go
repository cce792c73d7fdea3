// Command guest runs in the containers of the tests. The static binary is the whole
// image.
//
//	guest serve                          answer on TCP and UDP port 5000
//	guest wait                           do nothing, as a pod's first container
//	guest udp ADDR:PORT SIZE [fragment]  one datagram of SIZE bytes and its echo
//	guest tcp ADDR:PORT SIZE             SIZE bytes and their echo
//
// The TCP server begins with a line that has the client's address. The client prints
// it.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	port = ":5000"
	// timeout bounds a client's wait for a connection and for each answer.
	timeout = 5 * time.Second
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "guest: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 1 && args[0] == "serve" {
		return serve(ctx)
	}
	if len(args) == 1 && args[0] == "wait" {
		ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM)
		defer stop()
		<-ctx.Done()
		return nil
	}
	if len(args) < 3 {
		return errors.New("usage: serve, wait, or udp or tcp with an address and a size")
	}
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return fmt.Errorf("read size: %w", err)
	}
	switch args[0] {
	case "udp":
		return sendDatagram(ctx, args[1], size, len(args) > 3 && args[3] == "fragment")
	case "tcp":
		return sendStream(ctx, args[1], size, out)
	}
	return fmt.Errorf("command %q is not known", args[0])
}

func serve(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", port)
	if err != nil {
		return err
	}
	defer l.Close()
	p, err := lc.ListenPacket(ctx, "udp", port)
	if err != nil {
		return err
	}
	defer p.Close()
	g, ctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, func() {
		l.Close()
		p.Close()
	})
	g.Go(func() error { return echoDatagrams(p) })
	g.Go(func() error {
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			g.Go(func() error {
				echoStream(c)
				return nil
			})
		}
	})
	return g.Wait()
}

func echoDatagrams(p net.PacketConn) error {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := p.ReadFrom(buf)
		if err != nil {
			return err
		}
		// A failed answer does not end the server.
		_, _ = p.WriteTo(buf[:n], from)
	}
}

// echoStream serves one client, which sees a failure itself.
func echoStream(c net.Conn) {
	defer c.Close()
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return
	}
	if _, err := fmt.Fprintln(c, host); err != nil {
		return
	}
	_, _ = io.Copy(c, c)
}

// payload returns random bytes, no part of which equals another.
func payload(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return b
}

func sendDatagram(ctx context.Context, addr string, size int, fragment bool) error {
	d := net.Dialer{Timeout: timeout, Control: func(network, _ string, c syscall.RawConn) (err error) {
		mode := unix.IP_PMTUDISC_DO // a packet above the path's MTU is an error
		if fragment {
			mode = unix.IP_PMTUDISC_DONT
		}
		level, option := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
		if network == "udp6" { // the modes have the same values
			level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
		}
		if e := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), level, option, mode)
		}); e != nil {
			return e
		}
		return err
	}}
	c, err := d.DialContext(ctx, "udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	sent := payload(size)
	if _, err := c.Write(sent); err != nil {
		return fmt.Errorf("send %d bytes: %w", size, err)
	}
	if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	echo := make([]byte, 1<<16)
	n, err := c.Read(echo)
	if err != nil {
		return fmt.Errorf("wait for the echo of %d bytes: %w", size, err)
	}
	if !bytes.Equal(echo[:n], sent) {
		return fmt.Errorf("the echo of %d bytes differs, it has %d", size, n)
	}
	return nil
}

func sendStream(ctx context.Context, addr string, size int, out io.Writer) error {
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := conn.(*net.TCPConn)
	if err := c.SetDeadline(time.Now().Add(10 * timeout)); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	seen, err := r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("read our address: %w", err)
	}
	sent := payload(size)
	var g errgroup.Group
	g.Go(func() error {
		if _, err := c.Write(sent); err != nil {
			return fmt.Errorf("send %d bytes: %w", size, err)
		}
		return c.CloseWrite()
	})
	echo := sha256.New()
	n, err := io.Copy(echo, r)
	if err := errors.Join(err, g.Wait()); err != nil {
		return err
	}
	if want := sha256.Sum256(sent); !bytes.Equal(echo.Sum(nil), want[:]) {
		return fmt.Errorf("the echo of %d bytes differs, it has %d", size, n)
	}
	_, err = fmt.Fprintln(out, strings.TrimSpace(seen))
	return err
}
