package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A changed rule must judge the flows that earlier rules have passed. So the programs are
// suspended at once. The entries of all flows lose their marks before the programs go on.
// The next packet of each flow takes the long way.

// Attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctnlMsgGet      = 1 // IPCTNL_MSG_CT_GET
	ctnlMsgGetStats = 4 // IPCTNL_MSG_CT_GET_STATS_CPU
	ctaMark         = 8
	ctaMarkMask     = 21
)

// rulesChanged suspends the programs until the next look at the rules. An error
// of it is that of the next look.
func (p *Path) rulesChanged() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stale = true // promise: changed-rules-judge-again
	p.suspendErr = p.programs.suspend()
}

// beginJudgement takes the marks away if rules have changed since the last call.
// It runs in the network namespace of the device.
func (p *Path) beginJudgement() error {
	p.mu.Lock()
	stale, err := p.stale, p.suspendErr
	p.stale, p.suspendErr = false, nil
	p.mu.Unlock()
	if err != nil || !stale || p.programs.lacking != nil { // without the other programs there are no marks
		return err
	}
	if err := unmarkAll(p.config.Marks, p.config.Network.Contains); err != nil {
		p.rulesChanged() // try again
		return err
	}
	return nil
}

// endJudgement lets the programs go on if no rule has changed meanwhile.
func (p *Path) endJudgement(replied bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stale {
		return nil // another look is due
	}
	return p.programs.renew(replied)
}

// unmarkAll takes the bits from the marks of the entries with a selected address.
func unmarkAll(marks Marks, selected func(netip.Addr) bool) error {
	return errors.Join(unmarkEntries(marks.Sent, selected), unmarkEntries(marks.Received, selected))
}

// unmarkEntries takes a bit from the marks of entries.
func unmarkEntries(mark uint32, selected func(netip.Addr) bool) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Strict: true})
	if err != nil {
		return fmt.Errorf("open conntrack netlink: %w", err)
	}
	defer conn.Close()
	entries, err := conntrackRequest(conn, ctnlMsgGet, netlink.Dump, func(a *netlink.AttributeEncoder) {
		a.Uint32(ctaMark, mark)
		a.Uint32(ctaMarkMask, mark)
	})
	if err != nil {
		return fmt.Errorf("list conntrack entries: %w", err)
	}
	for _, m := range entries {
		tuple, err := originalTuple(m)
		if err != nil {
			return fmt.Errorf("decode conntrack entry: %w", err)
		}
		if !slices.ContainsFunc(addrsOf(tuple), selected) {
			continue
		}
		_, err = conntrackRequest(conn, ctnlMsgNew, netlink.Acknowledge, func(a *netlink.AttributeEncoder) {
			a.Bytes(ctaTupleOrig|netlink.Nested, tuple)
			a.Uint32(ctaMark, 0)
			a.Uint32(ctaMarkMask, mark)
		})
		if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: the flow has ended
			return fmt.Errorf("change mark of conntrack entry: %w", err)
		}
	}
	return nil
}

// loadConntrack makes the kernel load its modules of connection tracking, whose functions
// the programs call. The kernel does so for the first request about entries
// (nfnetlink_rcv_msg in net/netfilter/nfnetlink.c).
func loadConntrack() error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Strict: true})
	if err != nil {
		return fmt.Errorf("open conntrack netlink: %w", err)
	}
	defer conn.Close()
	_, err = conntrackRequest(conn, ctnlMsgGetStats, netlink.Dump, func(*netlink.AttributeEncoder) {})
	if err != nil {
		return fmt.Errorf("read statistics of conntrack: %w", err)
	}
	return nil
}

func originalTuple(m netlink.Message) (tuple []byte, err error) {
	if len(m.Data) < nfgenmsgLen {
		return nil, errors.New("it is too short")
	}
	a, err := netlink.NewAttributeDecoder(m.Data[nfgenmsgLen:])
	if err != nil {
		return nil, err
	}
	for a.Next() {
		if a.Type() == ctaTupleOrig {
			tuple = a.Bytes()
		}
	}
	return tuple, a.Err()
}

// addrsOf returns source and target of a tuple.
func addrsOf(tuple []byte) (addrs []netip.Addr) {
	a, err := netlink.NewAttributeDecoder(tuple)
	if err != nil {
		return nil
	}
	for a.Next() {
		if a.Type() != ctaTupleIP {
			continue
		}
		a.Nested(func(a *netlink.AttributeDecoder) error {
			for a.Next() {
				if addr, ok := netip.AddrFromSlice(a.Bytes()); ok {
					addrs = append(addrs, addr)
				}
			}
			return nil
		})
	}
	return addrs
}

// conntrackRequest makes a request about IPv4 entries.
func conntrackRequest(conn *netlink.Conn, kind int, flags netlink.HeaderFlags, add func(*netlink.AttributeEncoder)) ([]netlink.Message, error) {
	a := netlink.NewAttributeEncoder()
	a.ByteOrder = binary.BigEndian
	add(a)
	attributes, err := a.Encode()
	if err != nil {
		return nil, err
	}
	return conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<nfnlSubsystemShift | kind),
			Flags: netlink.Request | flags,
		},
		Data: append([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, attributes...), // struct nfgenmsg
	})
}
