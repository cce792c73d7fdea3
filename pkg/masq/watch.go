package masq

import (
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nfgenmsgLen is the size of struct nfgenmsg, in bytes
// (linux/netfilter/nfnetlink.h).
const nfgenmsgLen = 4

// concerns reports whether a datagram announces a change of the table, its
// chains or its rules. The monitor of google/nftables does not serve here: it
// ends when its receive buffer overflows, and decodes the rules of all tables.
func concerns(datagram []byte, table string) bool {
	messages, err := syscall.ParseNetlinkMessage(datagram)
	if err != nil {
		return true
	}
	for _, m := range messages {
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

// tableOf returns the name of the table that an announcement is about, or "". The
// name is attribute 1 of tables, chains and rules (NFTA_TABLE_NAME,
// NFTA_CHAIN_TABLE, NFTA_RULE_TABLE in linux/netfilter/nf_tables.h), behind a
// struct nfgenmsg.
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
