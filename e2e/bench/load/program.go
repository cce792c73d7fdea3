package load

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"time"
)

// programName is the first argument of the executable that starts the load program.
const programName = "load-program"

// kind is a load of the load program.
type kind string

const (
	udpRR   kind = "udp-rr"
	tcpRR   kind = "tcp-rr"
	tcpCRR  kind = "tcp-crr"
	udpSend kind = "udp-send"
)

// network returns "udp" or "tcp".
func (k kind) network() string { return string(k[:3]) }

// executable is the path of the running program, also after its file is replaced.
const executable = "/proc/self/exe"

// serverArgs returns the arguments of a server at an address.
func serverArgs(k kind, at netip.AddrPort) []string {
	return []string{programName, "server", string(k), at.String()}
}

// clientArgs returns the arguments of a client.
func clientArgs(k kind, from netip.Addr, to netip.AddrPort, size, seconds int) []string {
	return []string{programName, "client", string(k), from.String(), to.String(), strconv.Itoa(size), strconv.Itoa(seconds)}
}

// Main runs the load program if the executable's arguments are its own. Every
// executable that uses this package must call it first, and must then exit with the
// code if there was such a run.
func Main() (code int, run bool) {
	if len(os.Args) < 2 || os.Args[1] != programName {
		return 0, false
	}
	// The thread stays the same between system calls.
	runtime.LockOSThread()
	if err := runProgram(os.Args[2:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

func runProgram(args []string, stdout io.Writer) error {
	switch {
	case len(args) == 3 && args[0] == "server":
		at, err := netip.ParseAddrPort(args[2])
		if err != nil {
			return fmt.Errorf("parse arguments: %w", err)
		}
		return runServer(kind(args[1]), at)
	case len(args) == 6 && args[0] == "client":
		c, err := parseClient(args[1:])
		if err != nil {
			return fmt.Errorf("parse arguments: %w", err)
		}
		r, err := c.run()
		if err != nil {
			return err
		}
		return json.NewEncoder(stdout).Encode(r)
	}
	return fmt.Errorf("parse arguments: %q are neither those of a server nor of a client", args)
}

func parseClient(args []string) (*loadClient, error) {
	c := &loadClient{kind: kind(args[0])}
	var err error
	if c.from, err = netip.ParseAddr(args[1]); err != nil {
		return nil, err
	}
	if c.to, err = netip.ParseAddrPort(args[2]); err != nil {
		return nil, err
	}
	size, err := strconv.Atoi(args[3])
	if err != nil {
		return nil, err
	}
	if size < minSize {
		return nil, fmt.Errorf("size %d is below %d", size, minSize)
	}
	c.message = make([]byte, size)
	seconds, err := strconv.Atoi(args[4])
	if err != nil {
		return nil, err
	}
	c.length = time.Duration(seconds) * time.Second
	return c, nil
}
