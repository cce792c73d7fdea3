package fastpath

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/pinned"
)

// programs are the kernel's objects: loaded, or adopted from an earlier process.
type programs struct {
	config  Config
	tunnel  Tunnel        // see join
	epoch   atomic.Uint32 // see refresh
	tc      *netlink.Handle
	filters bool // the kernel has no tcx
	// lacking is what the kernel lacks for all programs but `whole`; nil: nothing.
	lacking error

	objects
}

// objects are pinned under their names in fastpath.c.
type objects struct {
	fastpathPrograms
	fastpathMaps
}

// open adopts the programs that are pinned at c.PinDir. If they are of another version or
// configuration, it loads new ones. It runs in the network namespace of the device.
//
// If the kernel lacks functions of connection tracking, only `whole` is loaded.
//
// Errors: errors.Is(err, os.ErrPermission) where capabilities are missing
// (CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON); ebpf.ErrNotSupported where the kernel is
// too old.
func open(c Config) (_ *programs, adopted bool, err error) {
	if err := c.validate(); err != nil {
		return nil, false, fmt.Errorf("load fast path: %w", err)
	}
	p := &programs{config: c}
	p.epoch.Store(1)
	// Before Linux 5.11, maps count as locked memory. If this fails, the load says so.
	_ = rlimit.RemoveMemlock()
	if c.direct() {
		err = c.prepareDirect()
	}
	if err == nil {
		adopted, err = p.adopt()
	}
	if err == nil && !adopted {
		err = p.load()
	}
	if err == nil && !adopted && p.lacking != nil {
		if adopted, err = p.adopt(); err == nil && !adopted {
			err = p.loadWhole()
		}
	}
	if err == nil {
		err = p.openHooks()
	}
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("load fast path: %w", err), p.close())
	}
	return p, adopted, nil
}

// openHooks chooses the kind of hooks.
func (p *programs) openHooks() (err error) {
	if p.tc, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open route netlink: %w", err)
	}
	err = netdev.ProbeTCX(p.Whole)
	if p.filters = p.config.old || errors.Is(err, ebpf.ErrNotSupported); p.filters {
		return nil
	}
	return explain(err)
}

// join makes the programs call those of the tunnel.
func (p *programs) join(t Tunnel) error {
	if err := p.preparePins(); err != nil {
		return err
	}
	if t.Encap != nil {
		if err := p.Encap.Put(uint32(0), t.Encap); err != nil {
			return fmt.Errorf("join fast path to the tunnel's program: %w", err)
		}
	}
	p.tunnel = t
	return nil
}

// preparePins makes the directory of pins, unless it is there.
func (p *programs) preparePins() error {
	_, err := os.Stat(p.config.PinDir)
	switch {
	case !errors.Is(err, os.ErrNotExist):
	case p.config.direct():
		err = p.config.prepareDirect()
	default:
		err = os.Mkdir(p.config.PinDir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("make directory for pins of fast path: %w", err)
	}
	return nil
}

// leave detaches the programs and removes their pins.
func (p *programs) leave() error {
	if err := p.set(service{}); err != nil {
		return err
	}
	if err := p.Encap.Delete(uint32(0)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("separate fast path from the tunnel's program: %w", err)
	}
	p.tunnel = Tunnel{}
	if err := os.RemoveAll(p.config.PinDir); err != nil {
		return fmt.Errorf("remove pins of fast path: %w", err)
	}
	return nil
}

// load loads all programs, or notes what they lack.
func (p *programs) load() error {
	spec, err := p.spec()
	if err != nil {
		return err
	}
	modules := loadConntrack()
	err = spec.LoadAndAssign(&p.objects, nil)
	if p.config.onlyWhole {
		err = errors.Join(ebpf.ErrNotSupported, p.close())
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		log.V(1).Infof("fast path of %s: %v", p.config.Name, err)
		p.lacking = whyNotSupported(modules, pinned.Interpreted)
		p.objects = objects{}
		return nil
	}
	if err != nil {
		return explain(err)
	}
	known, err := knowsLookUp(cmp.Or(p.config.lookUp, skipNeighbour))
	if err == nil && !known {
		p.lacking = errLookUp
		err = p.close()
		p.objects = objects{}
	}
	return err
}

// loadWhole loads `whole` and the maps. What `whole` reads of the kernel's structures it
// does without if the kernel does not describe its types.
func (p *programs) loadWhole() error {
	spec, err := p.spec()
	if err != nil {
		return err
	}
	var some struct {
		fastpathMaps
		Whole *ebpf.Program `ebpf:"whole"`
	}
	o := &ebpf.CollectionOptions{}
	if _, err := btf.LoadKernelSpec(); err != nil || p.config.onlyWhole {
		if o.Programs.KernelTypes, err = noTypes(); err != nil {
			return err
		}
	}
	if err := spec.LoadAndAssign(&some, o); err != nil {
		return explain(err)
	}
	p.fastpathMaps, p.Whole = some.fastpathMaps, some.Whole
	return nil
}

// noTypes returns the types of a kernel that describes none.
func noTypes() (*btf.Spec, error) {
	b, err := btf.NewBuilder(nil, nil)
	if err != nil {
		return nil, err
	}
	return b.Spec()
}

// spec returns the programs with their constants.
func (p *programs) spec() (*ebpf.CollectionSpec, error) {
	spec, err := loadFastpath()
	if err != nil {
		return nil, err
	}
	c := p.config
	hz, err := jiffiesPerSecond()
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]uint32{
		fastpathVarDevice:      uint32(c.Device),
		fastpathVarNetwork:     be32(c.Network.Addr()),
		fastpathVarNetworkMask: mask(c.Network.Bits()),
		fastpathVarSubnet:      be32(c.Subnet.Addr()),
		fastpathVarSubnetMask:  mask(c.Subnet.Bits()),
		fastpathVarSent:        c.Marks.Sent,
		fastpathVarReceived:    c.Marks.Received,
		fastpathVarHz:          hz,
		fastpathVarSeed:        rand.Uint32(),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	return spec, nil
}

// close releases the file descriptors. What is pinned stays at work.
func (p *programs) close() error {
	if p.tc != nil {
		p.tc.Close()
	}
	return errors.Join(p.fastpathPrograms.Close(), p.fastpathMaps.Close())
}

func (p *programs) objectsDir() string {
	c := p.config
	return pinned.Dir(c.PinDir, _FastpathBytes, c.Device, c.Network, c.Subnet, c.Marks, p.lacking != nil)
}

// all are the objects that the next process can take over.
func (p *programs) all() pinned.Objects {
	return pinned.Objects{Programs: p.byName(), Maps: p.maps()}
}

// adopt opens pinned programs and maps of the same code and configuration; false if
// there are none.
func (p *programs) adopt() (bool, error) {
	found, err := p.all().Load(p.objectsDir())
	return found, explain(err)
}

// seal pins programs and maps, and removes those of other versions.
func (p *programs) seal() error {
	if err := p.all().Save(p.objectsDir()); err != nil {
		return fmt.Errorf("pin fast path: %w", err)
	}
	return nil
}

func (p *programs) maps() map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		fastpathMapContainers: &p.Containers, fastpathMapPorts: &p.Ports, fastpathMapSlots: &p.Slots,
		fastpathMapCounts: &p.Counts, fastpathMapReports: &p.Reports, fastpathMapSettings: &p.Settings,
		fastpathMapEncap: &p.Encap, fastpathMapPaths: &p.Paths, fastpathMapExits: &p.Exits,
		fastpathMapCuts: &p.Cuts, fastpathMapOuterLinks: &p.OuterLinks,
	}
}

// byName returns the programs that are loaded, or are to be.
func (p *programs) byName() map[string]**ebpf.Program {
	if p.lacking != nil {
		return map[string]**ebpf.Program{fastpathProgWhole: &p.Whole}
	}
	return map[string]**ebpf.Program{
		fastpathProgFromContainer: &p.FromContainer, fastpathProgToContainer: &p.ToContainer,
		fastpathProgLeft: &p.Left, fastpathProgToContainerL2: &p.ToContainerL2,
		fastpathProgWhole: &p.Whole,
	}
}

// ids returns the numbers of our programs by name.
func (p *programs) ids() (map[string]ebpf.ProgramID, error) {
	ids := make(map[string]ebpf.ProgramID)
	for name, program := range p.byName() {
		info, err := (*program).Info()
		if err != nil {
			return nil, fmt.Errorf("look at program %s: %w", name, err)
		}
		ids[name], _ = info.ID() // each kernel with tcx or filters of tc has it
	}
	return ids, nil
}

// explain adds to an error of the kernel what the programs need.
func explain(err error) error { return pinned.Explain(err, "the fast path") }
