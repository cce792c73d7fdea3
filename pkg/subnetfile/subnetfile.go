// Package subnetfile writes and reads subnet.env, by which the host's container
// engine learns which addresses and which MTU to use:
//
//	FLANNEL_NETWORK=10.5.0.0/16
//	FLANNEL_SUBNET=10.5.72.1/24
//	FLANNEL_MTU=1472
//	FLANNEL_IPMASQ=false
//
// The file can be sourced by sh and named as EnvironmentFile in a systemd unit.
// The daemon itself reads it at start, to ask for the subnet that it had.
package subnetfile

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
)

// The keys, in the order in which they are written.
const (
	keyNetwork = "FLANNEL_NETWORK"
	keySubnet  = "FLANNEL_SUBNET"
	keyMTU     = "FLANNEL_MTU"
	keyIPMasq  = "FLANNEL_IPMASQ"
)

// maxSize is more than anybody's environment file has, in bytes.
const maxSize = 1 << 16

// Env is what the file says.
type Env struct {
	// Network is the overlay's whole range; invalid if a file that Read met,
	// written by an early flannel, does not tell it.
	Network netip.Prefix
	// Subnet is this host's, e.g. 10.5.72.0/24. The file names it by its first
	// usable address, 10.5.72.1/24, which a bridge is to have.
	Subnet netip.Prefix
	// MTU is the largest packet, in bytes, that a container may send; 0 if a file
	// that Read met does not tell it.
	MTU int
	// IPMasq says that flannel masquerades what leaves the overlay, so that the
	// container engine must not.
	IPMasq bool
}

// Write puts e at path, mode 0644. A reader sees the old file or the new one,
// never a part: the text goes to a temporary file in the same folder, reaches
// the disk, and is then renamed. Missing folders are made with mode 0755.
func Write(path string, e Env) error {
	if !e.Network.IsValid() || !e.Subnet.IsValid() {
		return fmt.Errorf("write %s: network %v or subnet %v is not valid", path, e.Network, e.Subnet)
	}
	// A rename would put a file in the place of a device node, such as /dev/null.
	if i, err := os.Lstat(path); err == nil && !i.Mode().IsRegular() && i.Mode()&os.ModeSymlink == 0 {
		return fmt.Errorf("write %s: it is there, and not a regular file but %v", path, i.Mode().Type())
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	// The engine that reads the file may run as another user: neither the umask
	// nor an older file's mode counts.
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o644))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer f.Cleanup() // of the temporary file; does nothing once it is renamed
	_, err = fmt.Fprintf(f, "%s=%v\n%s=%v\n%s=%d\n%s=%t\n", keyNetwork, e.Network.Masked(),
		keySubnet, firstUsable(e.Subnet), keyMTU, e.MTU, keyIPMasq, e.IPMasq)
	if err == nil {
		err = f.CloseAtomicallyReplace()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// firstUsable is p's first address that a host may have, with p's length.
func firstUsable(p netip.Prefix) netip.Prefix {
	addr := p.Masked().Addr()
	if !p.IsSingleIP() {
		addr = addr.Next()
	}
	return netip.PrefixFrom(addr, p.Bits())
}

// Read gives what the file at path says. Keys that are not ours are ignored,
// and of ours only FLANNEL_SUBNET has to be there; but a value that is there
// and does not parse is an error. A missing file is fs.ErrNotExist.
func Read(path string) (Env, error) {
	f, err := os.Open(path)
	if err != nil {
		return Env{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return Env{}, err
	}
	e, err := parse(string(text))
	if err != nil {
		return Env{}, fmt.Errorf("read %s: %w", path, err)
	}
	return e, nil
}

func parse(text string) (Env, error) {
	if len(text) > maxSize {
		return Env{}, fmt.Errorf("longer than %d bytes", maxSize)
	}
	vars, err := assignments(text)
	if err != nil {
		return Env{}, err
	}
	var e Env
	for key, value := range vars {
		switch key {
		case keyNetwork:
			e.Network, err = parsePrefix(value)
		case keySubnet:
			e.Subnet, err = parsePrefix(value)
		case keyMTU:
			var mtu uint64
			mtu, err = strconv.ParseUint(value, 10, 16)
			e.MTU = int(mtu)
		case keyIPMasq:
			e.IPMasq, err = strconv.ParseBool(value)
		}
		if err != nil {
			return Env{}, fmt.Errorf("parse %s=%q: %w", key, value, err)
		}
	}
	if !e.Subnet.IsValid() {
		return Env{}, fmt.Errorf("no %s in it", keySubnet)
	}
	return e, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(strings.TrimSpace(s))
	return p.Masked(), err
}
