// Package reservation reads and frees the addresses that the CNI plugin
// host-local keeps for attachments. The plugin has a folder for each network, and
// there a file for each address, with the container's ID and the interface's name.
package reservation

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"
)

// DefaultDir is the folder that host-local uses by default.
const DefaultDir = "/var/lib/cni/networks"

// Reservation is an address that is kept for an attachment.
type Reservation struct {
	Network string     `json:"network"`
	Addr    netip.Addr `json:"address"`
	// Container and Interface are the attachment. Old versions of host-local did not
	// write the interface.
	Container string    `json:"container"`
	Interface string    `json:"interface"`
	Since     time.Time `json:"since"`

	dir string
}

// List returns the reservations of a network below dir, by address. An empty
// network means all of them, an empty dir DefaultDir.
func List(dir, network string) (all []Reservation, err error) {
	if dir == "" {
		dir = DefaultDir
	}
	networks := []string{network}
	if network == "" {
		if networks, err = folders(dir); err != nil {
			return nil, err
		}
	}
	for _, n := range networks {
		found, err := list(dir, n)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func folders(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func list(dir, network string) (all []Reservation, err error) {
	entries, err := os.ReadDir(filepath.Join(dir, network))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		addr, parseErr := netip.ParseAddr(e.Name())
		if parseErr != nil {
			continue // the lock, or the last address of a range
		}
		r, readErr := read(dir, network, addr)
		switch {
		case errors.Is(readErr, fs.ErrNotExist): // freed meanwhile
		case readErr != nil:
			return nil, readErr
		default:
			all = append(all, r)
		}
	}
	return all, err
}

func read(dir, network string, addr netip.Addr) (Reservation, error) {
	path := filepath.Join(dir, network, addr.String())
	text, err := os.ReadFile(path)
	if err != nil {
		return Reservation{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Reservation{}, err
	}
	container, ifname, _ := strings.Cut(strings.TrimSpace(string(text)), disk.LineBreak)
	return Reservation{Network: network, Addr: addr, Container: container, Interface: ifname, Since: info.ModTime(), dir: dir}, nil
}

// Free frees the address, unless it is another attachment's by now.
func (r Reservation) Free() (err error) {
	store, err := disk.New(r.Network, r.dir)
	if err != nil {
		return fmt.Errorf("free %v of %s: %w", r.Addr, r.Network, err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.Lock(); err != nil {
		return fmt.Errorf("lock the addresses of %s: %w", r.Network, err)
	}
	defer func() { err = errors.Join(err, store.Unlock()) }()
	now, err := read(r.dir, r.Network, r.Addr)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case now.Container != r.Container || now.Interface != r.Interface: // promise: another-owner-keeps-the-address
		return nil
	}
	return os.Remove(filepath.Join(r.dir, r.Network, r.Addr.String()))
}
