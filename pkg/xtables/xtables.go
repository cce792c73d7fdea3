// Package xtables reads the policies of legacy iptables, whose tables nftables does
// not list. It changes nothing.
package xtables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Policy is what a built-in chain does with packets that no rule decides about.
type Policy string

// The policies that iptables can set.
const (
	Accept Policy = "ACCEPT"
	Drop   Policy = "DROP"
)

// Options of getsockopt, and the sizes and offsets of structures of
// linux/netfilter_ipv4/ip_tables.h and linux/netfilter/x_tables.h.
const (
	getInfo    = 64 // IPT_SO_GET_INFO: struct ipt_getinfo
	getEntries = 65 // IPT_SO_GET_ENTRIES: struct ipt_get_entries

	infoSize      = 84 // name, valid_hooks, hook_entry[5], underflow[5], num_entries, size
	infoUnderflow = 56
	infoEntries   = 80
	entriesHeader = 40 // name, size, and room for alignment
	entriesSize   = 32
	targetOffset  = 88 // in struct ipt_entry
	verdictOffset = 32 // behind struct xt_entry_target
)

// Filter returns the policy of the built-in chain at a hook (NF_INET_FORWARD and
// others) of the table filter, in the network namespace of the calling thread; ""
// if there is no such table, or if the process may not list the tables. It needs
// CAP_NET_ADMIN.
func Filter(hook int) (Policy, error) {
	exists, err := exists("filter")
	if err != nil || !exists {
		return "", err
	}
	p, err := policy("filter", hook)
	if err != nil {
		return "", fmt.Errorf("read table filter of legacy iptables: %w", err)
	}
	return p, nil
}

// exists reports whether the namespace has a table. The options of getsockopt would
// make it.
func exists(table string) (bool, error) {
	names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("list tables of legacy iptables: %w", err)
	}
	return slices.Contains(strings.Fields(string(names)), table), nil
}

func policy(table string, hook int) (Policy, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	info := make([]byte, infoSize)
	copy(info, table)
	if err := getsockopt(fd, getInfo, info); err != nil {
		return "", err
	}
	underflow := binary.NativeEndian.Uint32(info[infoUnderflow+4*hook:])
	size := binary.NativeEndian.Uint32(info[infoEntries:])
	entries := make([]byte, entriesHeader+size)
	copy(entries, table)
	binary.NativeEndian.PutUint32(entries[entriesSize:], size)
	// EAGAIN: the table has changed since.
	if err := getsockopt(fd, getEntries, entries); err != nil {
		return "", err
	}
	return verdict(entries[entriesHeader:], underflow)
}

// verdict returns the policy in the entry at an offset: a standard target, whose
// verdict is minus that of netfilter, less 1.
func verdict(entries []byte, at uint32) (Policy, error) {
	if uint64(at)+targetOffset+2 > uint64(len(entries)) {
		return "", fmt.Errorf("entry at %d of %d bytes", at, len(entries))
	}
	target := uint64(at) + uint64(binary.NativeEndian.Uint16(entries[at+targetOffset:])) + verdictOffset
	if target+4 > uint64(len(entries)) {
		return "", fmt.Errorf("target at %d of %d bytes", target, len(entries))
	}
	switch v := int32(binary.NativeEndian.Uint32(entries[target:])); -v - 1 {
	case nfDrop:
		return Drop, nil
	case nfAccept:
		return Accept, nil
	default:
		return "", fmt.Errorf("verdict %d of a built-in chain is no policy", v)
	}
}

// Verdicts of linux/netfilter.h.
const (
	nfDrop   = 0
	nfAccept = 1
)
