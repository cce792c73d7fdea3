package backend

import (
	"context"
	"fmt"
	"io"

	"github.com/coreos/flannel/subnet"
)

// Keeper is a Network with devices and sockets that the next Network of its backend can
// use, in the same process.
type Keeper interface {
	// Leave is Close, but leaves such devices and sockets open, in which packets wait.
	// kept is nil if there are none. The caller gives kept to Successor.UpWith, or
	// closes it, within moments: the kernel drops what exceeds its queues.
	Leave() (kept io.Closer, err error)
}

// Successor is a Backend whose Network uses what a Keeper has left.
type Successor interface {
	// UpWith is Up with the devices and sockets that the Network before has left. It
	// takes kept over in any case, and closes what it does not need.
	UpWith(ctx context.Context, l subnet.Lease, kept io.Closer) (Network, error)
}

// Leave closes a Network, and returns what it leaves for the next one; nil for nothing.
func Leave(n Network) (kept io.Closer, err error) {
	if k, ok := n.(Keeper); ok {
		return k.Leave()
	}
	return nil, n.Close()
}

// UpWith sets up a Network with what the one before has left, nil for nothing. If the
// backend has no use for kept, UpWith closes it.
func UpWith(ctx context.Context, b Backend, l subnet.Lease, kept io.Closer) (Network, error) {
	if kept == nil {
		return b.Up(ctx, l)
	}
	if s, ok := b.(Successor); ok {
		return s.UpWith(ctx, l, kept)
	}
	if err := kept.Close(); err != nil {
		return nil, fmt.Errorf("close what the network before has left: %w", err)
	}
	return b.Up(ctx, l)
}
