package udp

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

var (
	_ backend.Keeper    = (*network)(nil)
	_ backend.Successor = (*udpBackend)(nil)
)

// movable is a data path in user space. Another network can go on with its device and
// sockets. (The programs of the kernel path need no such thing, and stay anyway.)
type movable interface {
	dataPath
	// moveTo returns the path for another configuration, with the device, and with the
	// sockets for datagrams that come and go as before. It closes the others. The
	// former path is of no use after it, also if it fails.
	moveTo(p *pathConfig) (dataPath, error)
}

// kept is an open data path between two networks.
type kept struct {
	path     movable
	reason   string // for the choice of path
	networks [2]netip.Prefix
}

// Close closes device and sockets, unless a network has them.
func (k *kept) Close() error {
	if k.path == nil {
		return nil
	}
	return k.path.close()
}

// Leave implements backend.Keeper.
func (n *network) Leave() (io.Closer, error) {
	k := &kept{reason: n.reason}
	switch path := n.path.(type) {
	case *offloaded:
		k.path = path
	case *plain:
		k.path = path
	default:
		return nil, n.Close()
	}
	for _, f := range n.Inside() {
		k.networks[f] = n.Of(f).Network
	}
	n.left = true
	if err := n.Close(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// UpWith implements backend.Successor. Without a path that it can use, it is Up.
func (b *udpBackend) UpWith(ctx context.Context, l subnet.Lease, left io.Closer) (backend.Network, error) {
	before, ok := left.(*kept)
	if !ok {
		if err := left.Close(); err != nil {
			return nil, err
		}
		return b.Up(ctx, l)
	}
	n, err := b.up(ctx, l, before)
	if err == nil {
		return n, nil
	}
	if closed := before.Close(); closed != nil || ctx.Err() != nil {
		return nil, errors.Join(err, closed)
	}
	log.Warningf("cannot go on with device and sockets of the network before, make others: %v", err)
	return b.Up(ctx, l)
}

// takeOver goes on with the data path of the network before, and removes from its device
// the families that are no longer inside.
func (n *network) takeOver(before *kept) (err error) {
	path := before.path
	before.path = nil
	if n.path, err = path.moveTo(n.pathConfig); err != nil {
		return err
	}
	n.closers = append(n.closers, n.closePath)
	n.reason, n.applied = before.reason, make(chan struct{})
	link, err := n.links.LinkByName(n.path.deviceName())
	if err != nil {
		return err
	}
	for _, f := range inet.Families {
		if former := before.networks[f]; former.IsValid() && former != n.Of(f).Network {
			if _, err := rtnl.Release(n.links, link, former); err != nil {
				return err
			}
		}
	}
	return nil
}

// closePath closes the data path, unless it is left for the next network.
func (n *network) closePath() error {
	if n.left {
		return nil
	}
	return n.path.close()
}

// sameEnd reports whether sockets for datagrams of a family serve another configuration.
// Those in a VRF are bound to a device, which a device of that name may have replaced.
func (p *pathConfig) sameEnd(other *pathConfig, f inet.Family) bool {
	ours, theirs := p.Of(f).Uplink, other.Of(f).Uplink
	return p.locals[f] == other.locals[f] && (ours == theirs || ours.VRF == "" && theirs.VRF == "")
}

// moveTo implements movable.
func (d *offloaded) moveTo(p *pathConfig) (_ dataPath, err error) {
	next := &offloaded{pathConfig: p, device: d.device}
	next.writeRefused.Store(d.writeRefused.Load())
	d.device = nil
	for _, f := range p.outer {
		if d.sameEnd(p, f) {
			next.receiving[f], next.sending[f] = d.receiving[f], d.sending[f]
			d.receiving[f], d.sending[f] = nil, nil
		}
	}
	if err = errors.Join(d.close(), next.resume()); err == nil { // d's sockets may have the port of new ones
		err = next.openSockets()
	}
	if err != nil {
		return nil, errors.Join(err, next.close())
	}
	return next, nil
}

func (d *offloaded) resume() error {
	errs := []error{d.device.Resume()}
	for _, c := range d.conns() {
		errs = append(errs, c.Resume())
	}
	return errors.Join(errs...)
}

// moveTo implements movable.
func (d *plain) moveTo(p *pathConfig) (_ dataPath, err error) {
	next := &plain{pathConfig: p, device: d.device, devName: d.devName}
	d.device = nil
	for _, f := range p.outer {
		if d.sameEnd(p, f) {
			next.sockets[f], d.sockets[f] = d.sockets[f], nil
		}
	}
	if err = errors.Join(d.close(), next.resume()); err == nil {
		err = next.openSockets()
	}
	if err != nil {
		return nil, errors.Join(err, next.close())
	}
	return next, nil
}

func (d *plain) resume() error {
	errs := []error{d.device.SetReadDeadline(time.Time{})}
	for _, s := range d.sockets {
		if s != nil {
			errs = append(errs, s.Resume())
		}
	}
	return errors.Join(errs...)
}
