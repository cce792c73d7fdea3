package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// holder is a socket that has the name of a lock.
type holder struct {
	inode    uint32
	uid      uint32
	uidKnown bool // since Linux 5.3
}

// trusted reports whether the socket may be a flannel's: root's, or our user's.
func (h holder) trusted() bool {
	return !h.uidKnown || h.uid == 0 || h.uid == uint32(os.Geteuid())
}

// holders returns the sockets of the calling thread's network namespace that are
// bound to the abstract name, or to a name that begins with it and a slash
// (sock_diag(7)).
func holders(name string) ([]holder, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(unixDiagRequest{})
	var found []holder
	var damaged error
	err := req.ExecuteIter(unix.NETLINK_SOCK_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(msg []byte) bool {
		h, bound, err := parseHolder(msg)
		if err != nil {
			damaged = err
			return false
		}
		if bound == "\x00"+name || strings.HasPrefix(bound, "\x00"+name+"/") {
			found = append(found, h)
		}
		return true
	})
	if err := errors.Join(err, damaged); err != nil {
		return nil, fmt.Errorf("list unix sockets: %w", err)
	}
	return found, nil
}

const (
	// sizeofMessage is the size of struct unix_diag_msg (linux/unix_diag.h).
	sizeofMessage = 16
	// show asks for names and users: UDIAG_SHOW_NAME | UDIAG_SHOW_UID.
	show = 1<<0 | 1<<6
)

// unixDiagRequest is struct unix_diag_req, for sockets in all states.
type unixDiagRequest struct{}

func (unixDiagRequest) Len() int { return 24 }

func (r unixDiagRequest) Serialize() []byte {
	b := make([]byte, r.Len())
	b[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // states
	binary.NativeEndian.PutUint32(b[12:], show)
	return b
}

// parseHolder reads one answer. An abstract name begins with a zero byte.
func parseHolder(msg []byte) (h holder, name string, err error) {
	if len(msg) < sizeofMessage {
		return h, "", fmt.Errorf("message of %d bytes", len(msg))
	}
	h.inode = binary.NativeEndian.Uint32(msg[4:])
	attrs, err := nl.ParseRouteAttr(msg[sizeofMessage:])
	if err != nil {
		return h, "", err
	}
	for _, a := range attrs {
		switch {
		case a.Attr.Type == netlink.UNIX_DIAG_NAME:
			name = string(a.Value)
		case a.Attr.Type == netlink.UNIX_DIAG_UID && len(a.Value) >= 4:
			h.uid, h.uidKnown = binary.NativeEndian.Uint32(a.Value), true
		}
	}
	return h, name, nil
}
