package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/pinned"
)

// Names in PinDir. They are those of earlier releases, whose links Attach takes
// over.
const (
	linkEncap     = "link_out"
	linkTCPrefix  = "link_in_"
	linkXDPPrefix = "link_early_"
)

func xdpLink(index int) string { return linkXDPPrefix + strconv.Itoa(index) }

// PinDir returns the directory for a device of the current network namespace.
func PinDir(device string) (string, error) {
	name, err := pinName(device)
	return filepath.Join(pinned.Root(), name), err
}

// pinName returns the name of a device's directory; for "" its prefix.
func pinName(device string) (string, error) {
	namespace, err := pinned.Namespace()
	return namespace + "-" + device, err
}

// Pinned returns the devices of the current network namespace that have a PinDir.
func Pinned() ([]string, error) {
	names, err := entryNames(pinned.Root())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for pins: %w", err)
	}
	prefix, err := pinName("")
	if err != nil {
		return nil, err
	}
	var devices []string
	for _, name := range names {
		device, ours := strings.CutPrefix(name, prefix)
		if ours && !strings.Contains(device, ":") { // the directory is of a device
			devices = append(devices, device)
		}
	}
	return devices, nil
}

// entryNames returns the names in a directory.
func entryNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Remove detaches the path that is pinned at dir and removes the pins. It returns
// nil if there are none. It must be called in the network namespace of the device.
func Remove(dir string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("remove pins of kernel path: %w", err)
		}
	}()
	names, err := entryNames(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	tc, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer tc.Close()
	for _, name := range hooksOf(names) {
		h, err := pinnedHook(tc, filepath.Join(dir, name))
		if err == nil && h != nil {
			err = h.End()
		}
		if err != nil {
			return err
		}
	}
	return pinned.Remove(dir)
}

// removeGone removes a directory whose device has gone, maybe of another namespace.
// Filters go with their network namespace, so theirs is removed after that has gone.
func removeGone(dir string) error {
	l, err := link.LoadPinnedLink(filepath.Join(dir, linkEncap), nil)
	if err != nil {
		gone, err := pinned.NamespaceIsGone(dir)
		if gone {
			err = os.RemoveAll(dir)
		}
		return explain(err)
	}
	_, index, err := pinned.Attachment(l)
	if err := errors.Join(err, l.Close()); err != nil || index != 0 {
		return err
	}
	return Remove(dir)
}

// objectsDir holds the pinned programs and maps. Hooks are pinned beside it, since
// they outlive their programs.
func (c Config) objectsDir() string {
	return pinned.Dir(c.PinDir, _FlannelBytes, c.Device, c.Port, c.Locals, c.Subnets, c.MTU, c.MaxPeers)
}

// all are the objects that the next process can take over.
func (p *Path) all() pinned.Objects {
	return pinned.Objects{Programs: p.programs(), Maps: p.maps()}
}

// adopt takes over pinned programs and maps of the same code and configuration.
func (p *Path) adopt() error {
	found, err := p.all().Load(p.config.objectsDir())
	if err != nil || !found {
		return explain(err)
	}
	var m flannelMasks
	if err := p.Lengths.Lookup(uint32(0), &m); err != nil {
		return explain(err)
	}
	p.adopted, p.incomplete = true, m.Incomplete != 0
	return p.readPeers(func(subnet netip.Prefix, v flannelPeer) {
		p.table[subnet] = v.endpoint()
		p.count(subnet, v.endpoint(), +1)
	})
}

// commitPins pins programs and maps, and removes the earlier ones.
func (p *Path) commitPins() error {
	if p.filters {
		if err := pinned.PinNamespace(p.config.PinDir); err != nil {
			return err
		}
	}
	return p.all().Save(p.config.objectsDir())
}

func (p *Path) maps() map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		flannelMapPeers: &p.Peers, flannelMapLengths: &p.Lengths,
		flannelMapPeers6: &p.Peers6, flannelMapLengths6: &p.Lengths6,
		flannelMapHosts: &p.Hosts, flannelMapDrops: &p.Drops, flannelMapPassed: &p.flannelMaps.Passed,
		flannelMapFastPath: &p.FastPath, flannelMapSegmenter: &p.Segmenter,
	}
}

func (p *Path) programs() map[string]**ebpf.Program {
	return map[string]**ebpf.Program{
		flannelProgEncap: &p.Encap, flannelProgDecapL2: &p.DecapL2, flannelProgDecapL3: &p.DecapL3,
		flannelProgDecapXdp: &p.DecapXdp, flannelProgObserve: &p.Observe, flannelProgEncapL2: &p.EncapL2, flannelProgJoined: &p.Joined,
	}
}
