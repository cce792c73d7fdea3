package load

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	// backlog of the server's socket (listen(2)).
	backlog = 128
	// largestMessage of the UDP server, in bytes.
	largestMessage = 1 << 16
)

// runServer sends each request back, until the process is killed. For tcpCRR it
// closes the connection after the first, so that TIME_WAIT is the server's and the
// client's ports are free at once.
func runServer(k kind, at netip.AddrPort) error {
	fd, err := open(k, at)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if k == udpRR {
		return echoDatagrams(fd)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return fmt.Errorf("listen on %v: %w", at, err)
	}
	for {
		var conn int
		err := retry(func() (err error) {
			conn, _, err = unix.Accept4(fd, unix.SOCK_CLOEXEC)
			return err
		})
		if err != nil {
			return fmt.Errorf("accept connection: %w", err)
		}
		err = echoStream(conn, k == tcpCRR)
		unix.Close(conn)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
			return fmt.Errorf("send request back: %w", err)
		}
	}
}

func echoDatagrams(fd int) error {
	buf := make([]byte, largestMessage)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive request: %w", err)
		}
		if err := retry(func() error { return unix.Sendto(fd, buf[:n], 0, from) }); err != nil {
			return fmt.Errorf("send request back: %w", err)
		}
	}
}

// echoStream sends back what comes until the peer closes, or only the first
// message.
func echoStream(fd int, once bool) error {
	buf := make([]byte, messageSize)
	for {
		if err := readFull(fd, buf); err != nil {
			return err
		}
		if err := write(fd, buf); err != nil || once {
			return err
		}
	}
}
