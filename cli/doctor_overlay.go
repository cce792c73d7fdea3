package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/probe"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/subnet"
)

const (
	// pingsAtOnce is the number of peers that are pinged at once. Each gets up to
	// pingTries pings, and each ping pingTimeout for its reply.
	pingsAtOnce = 64
	pingTries   = 3
	pingTimeout = 500 * time.Millisecond
	// namedPeers is the number of peers that a finding names; it counts the rest.
	namedPeers = 3
)

// overlay holds the results of pings to all peers, through the overlay and, if
// that is silent, outside of it.
type overlay struct {
	facts *facts
	known bool  // the daemon has a network
	err   error // why no ping could be sent
	peers []peerPath
}

type peerPath struct {
	status.Peer
	answers     bool // through the overlay
	hostAnswers bool // the public IP answers, the overlay does not
	mtu         int  // the largest packet that arrives, 0 if unknown
}

func (p peerPath) String() string { return fmt.Sprintf("%v at %v", p.Subnet, p.PublicIP) }

// measureOverlay pings every peer of the daemon.
func measureOverlay(ctx context.Context, f *facts) *overlay {
	o := &overlay{facts: f}
	if f.report == nil || f.report.Backend == nil || f.report.Lease == nil || f.report.Backend.Type == "alloc" {
		return o
	}
	o.known = true
	for _, p := range f.report.Backend.Peers {
		o.peers = append(o.peers, peerPath{Peer: p})
	}
	if len(o.peers) > 0 {
		o.err = o.measure(ctx)
	}
	if o.err != nil { // use the daemon's measurements
		for i, p := range o.peers {
			if p.Probe != nil {
				o.peers[i].answers, o.peers[i].mtu = !p.Probe.Silent, p.Probe.MTU
			}
		}
	}
	return o
}

func (o *overlay) measure(ctx context.Context) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	var receivers, pings errgroup.Group
	pings.SetLimit(pingsAtOnce)
	opened := make(map[netip.Addr]*probe.Pinger)
	open := func(source netip.Addr) (p *probe.Pinger, err error) {
		if p = opened[source]; p != nil {
			return p, nil
		}
		if p, err = probe.Dial(source); err == nil {
			opened[source] = p
			receivers.Go(func() error { return errors.Join(p.Run(running), p.Close()) })
		}
		return p, err
	}
	lease, mtu := o.facts.report.Lease, o.facts.report.Backend.MTU
	own := subnet.Lease{Subnet: lease.Subnet, IPv6Subnet: lease.IPv6Subnet}
	var errs []error
	for i := range o.peers {
		p := &o.peers[i]
		inside, err := open(own.SubnetOf(inet.Of(p.Subnet.Addr())).Addr())
		outside, failed := open(inet.Of(p.PublicIP).Unspecified())
		if err = errors.Join(err, failed); err != nil {
			errs = append(errs, err)
			break
		}
		pings.Go(func() error { return p.measure(ctx, inside, outside, mtu) })
	}
	errs = append(errs, pings.Wait())
	stop()
	return errors.Join(append(errs, receivers.Wait())...)
}

// measure pings one peer. A ping that the kernel does not send counts as one
// without a reply.
func (p *peerPath) measure(ctx context.Context, inside, outside *probe.Pinger, full int) error {
	addr, ok := pingRepeatedly(ctx, inside, echoAddrs(p.Subnet))
	if p.answers = ok; !ok {
		_, p.hostAnswers = pingRepeatedly(ctx, outside, []netip.Addr{p.PublicIP})
		return ctx.Err()
	}
	var err error
	if p.mtu, err = inside.Largest(ctx, addr, full, pingTimeout/2); err != nil && ctx.Err() == nil {
		p.mtu = 0 // it no longer answers
	}
	return ctx.Err()
}

// pingRepeatedly returns the first address that replies within pingTries.
func pingRepeatedly(ctx context.Context, p *probe.Pinger, addrs []netip.Addr) (addr netip.Addr, ok bool) {
	for range pingTries {
		limited, cancel := context.WithTimeout(ctx, pingTimeout)
		addr, _, err := firstReply(limited, p, addrs)
		if err != nil && ctx.Err() == nil && limited.Err() == nil { // not sent
			<-limited.Done()
		}
		cancel()
		if err == nil {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

func (o *overlay) checkPeers() finding {
	if !o.known {
		return finding{}
	}
	var broken []string
	var silent, hostOnly []peerPath
	for _, p := range o.peers {
		switch {
		case p.Problem != "":
			broken = append(broken, p.String()+": "+p.Problem)
		case p.answers:
		case p.hostAnswers:
			hostOnly = append(hostOnly, p)
		default:
			silent = append(silent, p)
		}
	}
	_, port := o.facts.endpoint()
	switch {
	case broken != nil:
		return failed("flannel peers", "no packets can be exchanged with %s", firstNames(broken))
	case silent != nil:
		return failed(fmt.Sprintf("ping %v; ip link show; and check that host, its link and the path to it", silent[0].PublicIP),
			"%d of %d do not answer through the overlay, nor do their hosts: the hosts are down, or the path to them is cut: %s", len(silent)+len(hostOnly), len(o.peers), firstNames(append(silent, hostOnly...)))
	case hostOnly != nil:
		return failed(fmt.Sprintf("sudo flannel doctor, on %v; systemctl start flannel there; accept UDP port %d between the hosts", hostOnly[0].PublicIP, port),
			"%d of %d do not answer through the overlay, but their hosts do: flannel does not run there, or a firewall drops its packets, or only pings: %s", len(hostOnly), len(o.peers), firstNames(hostOnly))
	case o.err != nil:
		return warn("sudo flannel doctor", "pings could not be sent (%v); the daemon's probes report no problem with the %d peers", o.err, len(o.peers))
	case len(o.peers) == 0:
		return okay("no peers: this host is alone in the network")
	}
	return okay("all %d answer through the overlay", len(o.peers))
}

// checkMTU checks whether the largest packets of containers arrive.
func (o *overlay) checkMTU() finding {
	if !o.known || len(o.peers) == 0 {
		return finding{}
	}
	full := o.facts.report.Backend.MTU
	least, narrow, measured := full, []string(nil), 0
	for _, p := range o.peers {
		if p.mtu == 0 {
			continue
		}
		measured++
		if p.mtu < full {
			least = min(least, p.mtu)
			narrow = append(narrow, fmt.Sprintf("%d bytes to %v", p.mtu, p))
		}
	}
	node := o.facts.report.Node
	switch {
	case measured == 0:
		return finding{} // checkPeers reports it
	case narrow != nil:
		return failed(fmt.Sprintf("raise the MTU of the path to %d, or: ip link set %s mtu %d", node.MTU, node.Iface, least+node.MTU-full),
			"containers send packets of up to %d bytes, and large packets are lost, so that transfers hang: %s", full, firstNames(narrow))
	}
	return okay("packets of %d bytes, the largest that containers send, reach all %d peers", full, measured)
}

// firstNames joins the first of a list and counts the rest.
func firstNames[T any](all []T) string {
	var text string
	for i, name := range all {
		if i == namedPeers {
			return fmt.Sprintf("%sand %d more", text, len(all)-i)
		}
		text += fmt.Sprintf("%v; ", name)
	}
	return strings.TrimSuffix(text, "; ")
}
