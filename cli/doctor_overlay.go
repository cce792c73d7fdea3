package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/pkg/probe"
	"github.com/coreos/flannel/pkg/status"
)

const (
	// asked is how many peers are pinged at once, askTries how often, and
	// askPatience how long for an answer.
	asked       = 64
	askTries    = 3
	askPatience = 500 * time.Millisecond
	// namedPeers is how many of them a finding names; the others it counts.
	namedPeers = 3
)

// overlay is what pings to all peers have shown, through the overlay and, where
// that is silent, beside it.
type overlay struct {
	d     *doctor
	known bool // there is a daemon with a network
	// fault is why nothing could be sent.
	fault error
	peers []way
}

// way is the way to one peer.
type way struct {
	status.Peer
	answers bool
	// hostAnswers: its public IP does, where the overlay does not.
	hostAnswers bool
	mtu         int // the largest packet that passes, 0 if not known
}

// examineOverlay pings every peer of the daemon.
func (d *doctor) examineOverlay(ctx context.Context) *overlay {
	o := &overlay{d: d}
	if d.report == nil || d.report.Backend == nil || d.report.Lease == nil || d.report.Backend.Type == "alloc" {
		return o
	}
	o.known = true
	for _, p := range d.report.Backend.Peers {
		o.peers = append(o.peers, way{Peer: p})
	}
	if len(o.peers) > 0 {
		o.fault = o.measure(ctx)
	}
	if o.fault != nil { // then what the daemon has measured has to do
		for i, p := range o.peers {
			if p.Probe != nil {
				o.peers[i].answers, o.peers[i].mtu = !p.Probe.Silent, p.Probe.MTU
			}
		}
	}
	return o
}

func (o *overlay) measure(ctx context.Context) (err error) {
	inside, err := probe.Dial(o.d.report.Lease.Subnet.Addr())
	if err != nil {
		return err
	}
	outside, err := probe.Dial(netip.IPv4Unspecified())
	if err != nil {
		return errors.Join(err, inside.Close())
	}
	listening, stop := context.WithCancel(ctx)
	var listeners errgroup.Group
	listeners.Go(func() error { return inside.Run(listening) })
	listeners.Go(func() error { return outside.Run(listening) })
	var g errgroup.Group
	g.SetLimit(asked)
	for i := range o.peers {
		g.Go(func() error { return o.peers[i].measure(ctx, inside, outside, o.d.report.Backend.MTU) })
	}
	err = g.Wait()
	stop()
	return errors.Join(err, listeners.Wait(), inside.Close(), outside.Close())
}

// measure pings one peer. A packet that the kernel does not send is one without
// an answer.
func (w *way) measure(ctx context.Context, inside, outside *probe.Pinger, full int) error {
	at, ok := reach(ctx, inside, answering(w.Subnet))
	if w.answers = ok; !ok {
		_, w.hostAnswers = reach(ctx, outside, []netip.Addr{w.PublicIP})
		return ctx.Err()
	}
	var err error
	if w.mtu, err = inside.Largest(ctx, at, full, askPatience/2); err != nil && ctx.Err() == nil {
		w.mtu = 0 // it answers no longer
	}
	return ctx.Err()
}

// reach tries a few times; at is the address that has answered.
func reach(ctx context.Context, p *probe.Pinger, addrs []netip.Addr) (at netip.Addr, ok bool) {
	for range askTries {
		limited, cancel := context.WithTimeout(ctx, askPatience)
		at, _, err := firstOf(limited, p, addrs)
		if err != nil && ctx.Err() == nil && limited.Err() == nil { // not sent
			<-limited.Done()
		}
		cancel()
		if err == nil {
			return at, true
		}
	}
	return netip.Addr{}, false
}

// answers judges whether the peers answer.
func (o *overlay) answers(context.Context) finding {
	if !o.known {
		return finding{}
	}
	var broken, silent, alone []string // alone: the host answers, its overlay does not
	var first, firstAlone netip.Addr
	for _, w := range o.peers {
		name := fmt.Sprintf("%v at %v", w.Subnet, w.PublicIP)
		switch {
		case w.Problem != "":
			broken = append(broken, name+": "+w.Problem)
		case w.answers:
		case w.hostAnswers:
			if alone = append(alone, name); len(alone) == 1 {
				firstAlone = w.PublicIP
			}
		default:
			if silent = append(silent, name); len(silent) == 1 {
				first = w.PublicIP
			}
		}
	}
	_, port := o.d.listens()
	switch {
	case broken != nil:
		return fail("flannel peers", "packets cannot be exchanged with %s", few(broken))
	case silent != nil:
		return fail(fmt.Sprintf("ping %v; ip link show; and look at that host, its link and what is between", first),
			"%d of %d do not answer through the overlay, nor do their hosts: they are down, or the way to them is cut: %s", len(silent)+len(alone), len(o.peers), few(append(silent, alone...)))
	case alone != nil:
		return fail(fmt.Sprintf("sudo flannel doctor, on %v; systemctl start flannel there; let UDP port %d through between the hosts", firstAlone, port),
			"%d of %d do not answer through the overlay, but their hosts do: there flannel does not run, or a firewall drops its packets, or pings alone: %s", len(alone), len(o.peers), few(alone))
	case o.fault != nil:
		return warn("sudo flannel doctor", "could not be pinged (%v); the daemon's own probes know of no problem with the %d", o.fault, len(o.peers))
	case len(o.peers) == 0:
		return okay("there are none: this host is alone in the network")
	}
	return okay("all %d answer through the overlay", len(o.peers))
}

// sizes judges how large packets may be.
func (o *overlay) sizes(context.Context) finding {
	if !o.known || len(o.peers) == 0 {
		return finding{}
	}
	full := o.d.report.Backend.MTU
	least, narrow, measured := full, []string(nil), 0
	for _, w := range o.peers {
		if w.mtu == 0 {
			continue
		}
		measured++
		if w.mtu < full {
			least = min(least, w.mtu)
			narrow = append(narrow, fmt.Sprintf("%d bytes to %v at %v", w.mtu, w.Subnet, w.PublicIP))
		}
	}
	node := o.d.report.Node
	switch {
	case measured == 0:
		return finding{} // nobody answers, which is said above
	case narrow != nil:
		return fail(fmt.Sprintf("raise the MTU on the way to %d, or: ip link set %s mtu %d", node.MTU, node.Iface, least+node.MTU-full),
			"containers send packets of up to %d bytes, and large ones vanish, so that transfers hang: %s", full, few(narrow))
	}
	return okay("packets of %d bytes, the largest that containers send, pass to all %d peers", full, measured)
}

// few are the first of a list, and how many more there are.
func few(names []string) string {
	if len(names) <= namedPeers {
		return strings.Join(names, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(names[:namedPeers], "; "), len(names)-namedPeers)
}
