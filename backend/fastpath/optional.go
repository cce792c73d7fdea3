package fastpath

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/ratelog"
)

// Optional is a Path, or the reason why there is none. A failure of it ends no data
// path. Its methods may be called concurrently, but for Run and Close.
type Optional struct {
	config Config
	path   *Path // nil if there is none

	mu     sync.Mutex // guards reason
	reason string     // why there is none, or why it has failed
}

// OpenOptional opens a Path if flag, the value of -fastpath, and the kernel allow it.
// Without IPv4, c.Subnet is not valid.
func OpenOptional(flag string, c Config) *Optional {
	o := &Optional{config: c}
	if flag != backend.FastPathAuto {
		o.reason = "switched off by -fastpath"
		return o
	}
	if !c.Subnet.IsValid() {
		o.reason = "it takes packets of IPv4"
		return o
	}
	var err error
	if o.path, err = New(c); err != nil {
		o.path, o.reason = nil, err.Error()
		log.Infof("go on without fast path of=%s reason=%q", c.Name, err)
	}
	return o
}

// OpenDirect opens a Path without a tunnel, or removes what an earlier run has left of
// one. Bits are those of the marks.
func OpenDirect(flag string, network, subnet netip.Prefix, bits uint32) *Optional {
	c, err := Direct(network)
	if err != nil {
		return &Optional{reason: err.Error()}
	}
	c.Subnet, c.Marks = subnet, MarksOf(bits)
	o := OpenOptional(flag, c)
	if o.path == nil {
		err = RemoveDirect(network)
	} else {
		err = o.path.Join(Tunnel{})
	}
	if err != nil {
		o.fail(err)
	}
	return o
}

// Join is [Path.Join]. Without a Path it removes what an earlier run has left of one.
func (o *Optional) Join(t Tunnel) error {
	if o.path == nil {
		return errors.Join(Detach(t.Decap), Remove(o.config.PinDir, o.config.Name))
	}
	return o.path.Join(t)
}

// Suspend is [Path.Suspend].
func (o *Optional) Suspend() error {
	if o.path == nil {
		return nil
	}
	return o.path.Suspend()
}

// Run runs the Path until ctx ends.
func (o *Optional) Run(ctx context.Context) {
	if o.path == nil {
		return
	}
	if err := o.path.Run(ctx); err != nil {
		o.fail(err)
	}
}

// fail records why there is no fast path.
func (o *Optional) fail(err error) {
	log.Errorf("go on without fast path of=%s reason=%q", o.config.Name, err)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reason = err.Error()
}

// Close is [Path.Close].
func (o *Optional) Close() error {
	if o.path == nil {
		return nil
	}
	return o.path.Close()
}

// Stats returns what the status shows.
func (o *Optional) Stats() *backend.FastPath {
	s := &backend.FastPath{LongWay: map[string]uint64{}}
	o.mu.Lock()
	if o.reason != "" {
		s.Off = append(s.Off, o.reason)
	}
	o.mu.Unlock()
	if o.path == nil {
		return s
	}
	now := o.path.Status()
	s.Containers, s.Off, s.Cut = now.Containers, append(s.Off, now.Off...), now.Cut
	counts, err := o.path.Stats()
	if err != nil {
		ratelog.Errorf("read counters of fast path of=%s reason=%q", o.config.Name, err)
		return s
	}
	s.TxPackets, s.RxPackets = counts.Sent.Packets, counts.Received.Packets
	for reason, n := range counts.LongWay {
		s.LongWay[reason] = n.Packets
	}
	return s
}
