package subnettest

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/coreos/flannel/subnet"
)

// ReplaceConfig implements subnet.Admin.
func (f *Fake) ReplaceConfig(ctx context.Context, old, config []byte) error {
	err, lostAck := f.enter(ctx, OpReplaceConfig)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.config == nil || !bytes.Equal(f.config, old) {
		return refusal(subnet.ErrConflict, lostAck)
	}
	f.rev++
	f.config = append([]byte{}, config...)
	return lostAck
}

// Reserve implements subnet.Admin.
func (f *Fake) Reserve(ctx context.Context, l subnet.Lease) (subnet.Lease, error) {
	value, err := subnet.EncodeLease(l)
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("reserve %v: %w", l, err)
	}
	err, lostAck := f.enter(ctx, OpReserve)
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("reserve %v: %w", l, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire()
	e := f.keys[l.Key()]
	switch {
	case l.Rev == 0 && e != nil:
		return subnet.Lease{}, fmt.Errorf("reserve %v: %w", l, refusal(subnet.ErrExists, lostAck))
	case l.Rev != 0 && f.unchanged(l) == nil:
		return subnet.Lease{}, fmt.Errorf("reserve %v: %w", l, refusal(subnet.ErrConflict, lostAck))
	}
	e = f.put(l.Key(), value, 0)
	if lostAck != nil {
		return subnet.Lease{}, fmt.Errorf("reserve %v: %w", l, lostAck)
	}
	l.Expiration, l.Rev, l.Created, l.Reserved = time.Time{}, e.rev, e.created, true
	return l, nil
}
