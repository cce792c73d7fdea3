package hostrules

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Change is an announcement of nftables: a table, a chain or a rule was added or
// deleted.
type Change struct {
	Table string
	// Socket is the port of the socket that requested the change (nlmsg_pid,
	// netlink(7)).
	Socket uint32
}

// Changes decodes a datagram of announcements. Those of sets and their elements are
// left out, which change no rule. The monitor of google/nftables ends when its
// receive buffer overflows, and decodes the rules of all tables.
func Changes(datagram []byte) (changes []Change, err error) {
	messages, err := syscall.ParseNetlinkMessage(datagram)
	for _, m := range messages {
		if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
			continue
		}
		switch m.Header.Type & 0xff {
		case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN,
			unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
			changes = append(changes, Change{tableOf(m.Data), m.Header.Pid})
		}
	}
	return changes, err
}

// tableOf returns the name of the table that an announcement is about, or "". The
// name is attribute 1 of tables, chains and rules (NFTA_TABLE_NAME,
// NFTA_CHAIN_TABLE, NFTA_RULE_TABLE in linux/netfilter/nf_tables.h).
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

// ChangesRules reports whether a datagram announces a change of a table, a chain or a
// rule, or cannot be decoded.
func ChangesRules(datagram []byte) bool {
	changes, err := Changes(datagram)
	return err != nil || len(changes) > 0
}
