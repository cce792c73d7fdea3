package hostrules

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Change is an announcement of nftables. It is about a table, a chain, a rule, or an
// element of a set that was added or deleted.
type Change struct {
	Table string
	// Element is true for an element. It changes what a rule decides, and no rule.
	Element bool
	// Socket is the port of the socket that requested the change (nlmsg_pid,
	// netlink(7)).
	Socket uint32
}

// Changes decodes a datagram of announcements. It is in place of the monitor of
// google/nftables, which ends when its receive buffer overflows, and decodes all rules.
func Changes(datagram []byte) (changes []Change, err error) {
	messages, err := syscall.ParseNetlinkMessage(datagram)
	for _, m := range messages {
		if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
			continue
		}
		switch m.Header.Type & 0xff {
		case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN,
			unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
			changes = append(changes, Change{Table: tableOf(m.Data), Socket: m.Header.Pid})
		case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
			changes = append(changes, Change{Table: tableOf(m.Data), Socket: m.Header.Pid, Element: true})
		}
	}
	return changes, err
}

// tableOf returns the name of the table that an announcement is about, or "". The
// name is attribute 1 of tables, chains, rules and lists of elements (NFTA_TABLE_NAME,
// NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_ELEM_LIST_TABLE in
// linux/netfilter/nf_tables.h).
func tableOf(data []byte) string {
	a, err := attributes(data)
	if err != nil {
		return ""
	}
	for a.Next() {
		if a.Type() == unix.NFTA_TABLE_NAME {
			return a.String()
		}
	}
	return ""
}
