package subnettest

import (
	"context"
	"sync"

	"github.com/coreos/flannel/subnet"
)

// Op names a method of a store.
type Op string

// The methods that faults can be injected into.
const (
	OpConfig        Op = "Config"
	OpPublishConfig Op = "PublishConfig"
	OpReplaceConfig Op = "ReplaceConfig"
	OpReserve       Op = "Reserve"
	OpList          Op = "List"
	OpOverlapping   Op = "Overlapping"
	OpGet           Op = "Get"
	OpCreate        Op = "Create"
	OpUpdate        Op = "Update"
	OpMove          Op = "Move"
	OpDelete        Op = "Delete"
	OpWatch         Op = "Watch"
)

// Fault is the fault of one call. Its parts take effect in the order of the
// fields. The zero Fault lets the call pass, for use in a sequence.
type Fault struct {
	// Entered, if not nil, is closed when the call arrives.
	Entered chan<- struct{}
	// Wait, if not nil, blocks the call until it is closed or ctx ends.
	Wait <-chan struct{}
	// Hang blocks the call until ctx ends: a store that accepts connections and
	// never answers, or a watch that died silently.
	Hang bool
	// Err, if not nil, is returned without an effect on the store.
	Err error
	// LostAck, if not nil, is returned after the call had its full effect: the
	// store's answer got lost on the way back. A Watch is not affected.
	LostAck error
}

// faults are the queues of faults for the next calls, and the fault of all.
type faults struct {
	mu    sync.Mutex
	next  map[Op][]Fault
	down  error
	calls map[Op]int
}

// Inject queues faults for the next calls of op, one each.
func (f *Fake) Inject(op Op, next ...Fault) {
	f.faults.mu.Lock()
	defer f.faults.mu.Unlock()
	if f.faults.next == nil {
		f.faults.next = make(map[Op][]Fault)
	}
	f.faults.next[op] = append(f.faults.next[op], next...)
}

// SetDown makes every call fail with err, watches in progress included, until it
// is called with nil. Leases expire meanwhile, as behind a cut network.
func (f *Fake) SetDown(err error) {
	f.faults.mu.Lock()
	f.faults.down = err
	f.faults.mu.Unlock()
	if err != nil {
		f.BreakWatches(err)
	}
}

// Calls returns how many calls of op arrived so far, failed ones included.
func (f *Fake) Calls(op Op) int {
	f.faults.mu.Lock()
	defer f.faults.mu.Unlock()
	return f.faults.calls[op]
}

// enter counts a call of op and applies its fault, if any. It returns the error
// to return at once, and the one to return after the work is done.
func (f *Fake) enter(ctx context.Context, op Op) (err, lostAck error) {
	fault := f.faults.take(op)
	if fault.Entered != nil {
		close(fault.Entered)
	}
	if fault.Hang {
		fault.Wait = make(chan struct{})
	}
	if fault.Wait != nil {
		select {
		case <-fault.Wait:
		case <-ctx.Done():
		case <-f.closed:
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err(), nil
	case f.isClosed():
		return subnet.ErrClosed, nil
	case fault.Err != nil:
		return fault.Err, nil
	}
	return nil, fault.LostAck
}

func (fs *faults) take(op Op) Fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.calls == nil {
		fs.calls = make(map[Op]int)
	}
	fs.calls[op]++
	if fs.down != nil {
		return Fault{Err: fs.down}
	}
	if len(fs.next[op]) == 0 {
		return Fault{}
	}
	fault := fs.next[op][0]
	fs.next[op] = fs.next[op][1:]
	return fault
}
