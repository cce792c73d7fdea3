package cni

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// attachment is a container's interface in the network.
type attachment struct{ container, ifname string }

// separator is in no container's ID and in no interface's name (specification,
// section 2).
const separator = ":"

// attachments is a folder with the delegate's configuration of each attachment, in
// the file CONTAINER:INTERFACE. The first attachment of a container has the hard
// link CONTAINER as well: flannel-io/cni-plugin knows only that name. A file
// CONTAINER without a second link is from that program.
type attachments struct{ dir string }

func (a attachments) path(at attachment) string {
	return filepath.Join(a.dir, at.container+separator+at.ifname)
}

func (a attachments) shortPath(at attachment) string { return filepath.Join(a.dir, at.container) }

// save saves the configuration of at. It does not wait for the disk: host-local does
// not either when it then reserves the address, so that a crash of the host may lose
// either record. The address is leaked then, and GC finds it.
func (a attachments) save(at attachment, conf []byte) error {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	taken := a.isOther(at)
	temporary := filepath.Join(a.dir, "."+at.container+separator+at.ifname)
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) { // a second name, of a crash
		return err
	}
	if err := os.WriteFile(temporary, conf, 0o600); err != nil {
		return err
	}
	if err := os.Rename(temporary, a.path(at)); err != nil || taken {
		return err
	}
	if err := os.Link(a.path(at), temporary); err != nil {
		return err
	}
	return os.Rename(temporary, a.shortPath(at))
}

// load returns the saved configuration of at, and fs.ErrNotExist if there is none.
func (a attachments) load(at attachment) ([]byte, error) {
	conf, err := os.ReadFile(a.path(at))
	if errors.Is(err, fs.ErrNotExist) && a.isForeign(at) {
		conf, err = os.ReadFile(a.shortPath(at))
	}
	return conf, err
}

// remove removes the saved configuration of at.
func (a attachments) remove(at attachment) error {
	if !a.isOther(at) {
		if err := os.Remove(a.shortPath(at)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Remove(a.path(at)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isOther reports whether the short name is that of another attachment of the
// container.
func (a attachments) isOther(at attachment) bool {
	short, err := os.Stat(a.shortPath(at))
	if err != nil {
		return false
	}
	own, err := os.Stat(a.path(at))
	return links(short) > 1 && (err != nil || !os.SameFile(short, own)) // promise: interfaces-have-own-files
}

// isForeign reports whether the short name is a file of flannel-io/cni-plugin.
func (a attachments) isForeign(at attachment) bool {
	short, err := os.Stat(a.shortPath(at))
	return err == nil && links(short) == 1
}

// list returns the attachments that have a file. A file of flannel-io/cni-plugin
// gives one without an interface.
func (a attachments) list() ([]attachment, error) {
	entries, err := os.ReadDir(a.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []attachment
	for _, e := range entries {
		name := e.Name()
		container, ifname, full := strings.Cut(name, separator)
		switch {
		case strings.HasPrefix(name, ".") || !e.Type().IsRegular(): // a temporary file
		case full, a.isForeign(attachment{container: container}):
			all = append(all, attachment{container, ifname})
		}
	}
	return all, err
}

func links(info fs.FileInfo) uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 1
	}
	return uint64(st.Nlink)
}
