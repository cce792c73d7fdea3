package masq

import (
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nfgenmsgLen is the size of struct nfgenmsg, in bytes
// (linux/netfilter/nfnetlink.h).
const nfgenmsgLen = 4

// watcher hears the kernel's announcements about one nftables table. It reads
// the socket itself, since the monitor of google/nftables ends at the first
// overflow of its receive buffer, and decodes everybody's rules.
type watcher struct {
	conn *netlink.Conn
	// changed holds one token after any number of changes.
	changed chan struct{}
	// failed gives the error that ended the watch; it is closed without one
	// after close.
	failed chan error
	quit   chan struct{}
}

// watch begins to listen. The caller must close the watcher.
func watch(table string) (*watcher, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("watch nftables: %w", err)
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		conn.Close()
		return nil, fmt.Errorf("watch nftables: join group: %w", err)
	}
	w := &watcher{
		conn: conn, changed: make(chan struct{}, 1), failed: make(chan error, 1), quit: make(chan struct{}),
	}
	go w.run(table)
	return w, nil
}

// close ends the watch and waits for its reader.
func (w *watcher) close() {
	close(w.quit)
	w.conn.Close()
	for range w.failed {
	}
}

func (w *watcher) run(table string) {
	defer close(w.failed)
	for {
		msgs, err := w.conn.Receive()
		select {
		case <-w.quit:
			return
		default:
		}
		// ENOBUFS: announcements were lost, ours perhaps among them.
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			w.failed <- err
			return
		}
		if err != nil || concerns(msgs, table) {
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}
}

// concerns reports whether one of msgs tells of a change of the table, its
// chains or its rules.
func concerns(msgs []netlink.Message, table string) bool {
	for _, m := range msgs {
		if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
			continue
		}
		switch m.Header.Type & 0xff {
		case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN,
			unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
			if tableOf(m.Data) == table {
				return true
			}
		}
	}
	return false
}

// tableOf reads the table's name out of an announcement: it is attribute 1 of
// each kind that we look at (NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE
// in linux/netfilter/nf_tables.h), behind a struct nfgenmsg.
func tableOf(data []byte) string {
	if len(data) < nfgenmsgLen {
		return ""
	}
	ad, err := netlink.NewAttributeDecoder(data[nfgenmsgLen:])
	if err != nil {
		return ""
	}
	for ad.Next() {
		if ad.Type() == unix.NFTA_TABLE_NAME {
			return ad.String()
		}
	}
	return ""
}
