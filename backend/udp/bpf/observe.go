package bpf

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// ObserveSocket counts the datagrams at a UDP socket at our port that the programs
// should have taken; see Passed. It lasts until the socket is closed.
func (p *Path) ObserveSocket(raw syscall.RawConn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var attachErr error
	err := raw.Control(func(fd uintptr) {
		attachErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_BPF, p.Observe.FD())
	})
	if err := errors.Join(err, attachErr); err != nil {
		return fmt.Errorf("SO_ATTACH_BPF: %w", explain(err))
	}
	return nil
}

// Passed returns how many datagrams from peers' programs have reached the observed
// sockets since Load, whatever led them past decap. A few are normal while programs
// or peers change.
func (p *Path) Passed() (n uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.flannelMaps.Passed.Lookup(uint32(0), &n); err != nil {
		return 0, fmt.Errorf("read count of datagrams that passed the programs by: %w", err)
	}
	return n, nil
}
