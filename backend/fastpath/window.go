package fastpath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf/ringbuf"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/coreos/flannel/pkg/ratelog"
)

// flow is a TCP flow, from source to target.
type flow struct{ source, target netip.AddrPort }

// flowOf decodes struct flow of fastpath.h.
func flowOf(b []byte) (flow, bool) {
	if len(b) < 12 {
		return flow{}, false
	}
	port := binary.BigEndian.Uint16
	return flow{
		source: netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[0:4])), port(b[8:])),
		target: netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port(b[10:])),
	}, true
}

// windows turns off the check of sequence numbers for the TCP flows that the programs
// report.
type windows struct {
	reports *ringbuf.Reader
	conn    *netlink.Conn
	limit   *rate.Limiter // a container may cause any number of reports
}

// maxRequests bounds the requests in a second. What is not handled is reported again.
const maxRequests = 5000

// openWindows runs in the network namespace of the device.
func openWindows(p *programs) (*windows, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open conntrack netlink: %w", err)
	}
	reports, err := ringbuf.NewReader(p.Reports)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open reports of fast path: %w", err), conn.Close())
	}
	return &windows{reports, conn, rate.NewLimiter(maxRequests, maxRequests)}, nil
}

// run returns nil when ctx ends.
func (w *windows) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { w.reports.Close() })
	defer stop()
	var record ringbuf.Record
	for {
		switch err := w.reports.ReadInto(&record); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("read reports of fast path: %w", err)
		}
		f, ok := flowOf(record.RawSample)
		if !ok {
			continue
		}
		if w.limit.Wait(ctx) != nil {
			return nil
		}
		// ENOENT: the flow has ended.
		if err := w.ignore(f); err != nil && !errors.Is(err, unix.ENOENT) {
			ratelog.Warningf("turn off check of TCP window flow=%v-%v reason=%q", f.source, f.target, err)
		}
	}
}

// close is for after run, or without it.
func (w *windows) close() error { return errors.Join(w.reports.Close(), w.conn.Close()) }

// Attributes of linux/netfilter/nfnetlink_conntrack.h that x/sys/unix lacks.
const (
	ctnlMsgNew          = 0 // IPCTNL_MSG_CT_NEW
	ctaTupleOrig        = 1
	ctaProtoInfo        = 4
	ctaTupleIP          = 1
	ctaTupleProto       = 2
	ctaIPv4Source       = 1
	ctaIPv4Target       = 2
	ctaProtoNumber      = 1
	ctaProtoSourcePort  = 2
	ctaProtoTargetPort  = 3
	ctaProtoInfoTCP     = 1
	ctaTCPFlagsOriginal = 4
	ctaTCPFlagsReply    = 5
	flagBeLiberal       = 0x08 // IP_CT_TCP_FLAG_BE_LIBERAL, linux/netfilter/nf_conntrack_tcp.h
	flagMaxAck          = 0x20 // IP_CT_TCP_FLAG_MAXACK_SET
	nfgenmsgLen         = 4
	nfnlSubsystemShift  = 8
)

// ignore sets IP_CT_TCP_FLAG_BE_LIBERAL for both directions of the flow's entry, and has
// it forget what they have acknowledged (nlattr_to_tcp in
// net/netfilter/nf_conntrack_proto_tcp.c). The kernel finds the entry by the tuple of
// either direction.
func (w *windows) ignore(f flow) error {
	_, err := conntrackRequest(w.conn, ctnlMsgNew, netlink.Acknowledge, func(a *netlink.AttributeEncoder) {
		a.Nested(ctaTupleOrig, func(a *netlink.AttributeEncoder) error {
			a.Nested(ctaTupleIP, func(a *netlink.AttributeEncoder) error {
				a.Bytes(ctaIPv4Source, f.source.Addr().AsSlice())
				a.Bytes(ctaIPv4Target, f.target.Addr().AsSlice())
				return nil
			})
			a.Nested(ctaTupleProto, func(a *netlink.AttributeEncoder) error {
				a.Uint8(ctaProtoNumber, unix.IPPROTO_TCP)
				a.Uint16(ctaProtoSourcePort, f.source.Port())
				a.Uint16(ctaProtoTargetPort, f.target.Port())
				return nil
			})
			return nil
		})
		a.Nested(ctaProtoInfo, func(a *netlink.AttributeEncoder) error {
			a.Nested(ctaProtoInfoTCP, func(a *netlink.AttributeEncoder) error {
				flags := []byte{flagBeLiberal, flagBeLiberal | flagMaxAck} // struct nf_ct_tcp_flags: flags, mask
				a.Bytes(ctaTCPFlagsOriginal, flags)
				a.Bytes(ctaTCPFlagsReply, flags)
				return nil
			})
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("change conntrack entry: %w", err)
	}
	return nil
}
