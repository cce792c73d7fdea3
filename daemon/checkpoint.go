package daemon

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/atomicfile"
	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

const (
	// checkpointInterval is the period of looks for changes of the lease.
	checkpointInterval = 10 * time.Second
	// checkpointShare is the part of the time that writes may take, as its inverse: 10,000
	// peers are a file of some megabytes. The pause between two is checkpointInterval at
	// most.
	checkpointShare = 100
	// maxCheckpointPause bounds the pause before a failed write is repeated.
	maxCheckpointPause = 10 * time.Minute
	// checkpointHeader begins the file's first line, which a checksum ends. The
	// number changes with the layout:
	//
	//	flannel-state 1 sha256:9f86d0…\n
	//	{"JSON": "of the checkpoint"}
	checkpointHeader = "flannel-state 1 sha256:"
)

// errDamaged: the file exists and its checksum or JSON is wrong.
var errDamaged = errors.New("file is damaged")

// checkpoint is the data that a start needs while the store is away.
type checkpoint struct {
	// Prefix, Endpoints and API identify the network and its store.
	Prefix    string
	Endpoints []string
	API       string
	// StorePrefix is the prefix that the store was opened at, if its slashes are
	// not those of Prefix.
	StorePrefix string `json:",omitempty"`
	Config      subnet.Config
	Lease       subnet.Lease
	Peers       []*subnet.Lease
	// Written is when the checkpoint was written. Ends is when the lease ends, by
	// the clock of that boot (subnet.Timing.Clock).
	Written clock.Timestamp
	Ends    time.Duration
}

// remaining returns the time left on the lease, or <= 0 if the lease is not that of
// the host with these addresses. A nil checkpoint has none. In Kubernetes the Node is
// the host's, whatever its addresses are.
func (c *checkpoint) remaining(host subnet.Attrs, now clock.Timestamp) time.Duration {
	if c == nil || c.API != store.APIKubernetes && !c.Lease.Attrs.SameAddr(host) {
		return 0
	}
	if _, ends := c.Lease.Ends(); !ends {
		return math.MaxInt64
	}
	passed, known := now.Since(c.Written)
	if !known {
		return 0
	}
	return c.Ends - c.Written.SinceBoot - passed
}

// storePrefix returns the prefix to open the store at.
func (c *checkpoint) storePrefix() string {
	return cmp.Or(c.StorePrefix, strings.TrimSuffix(path.Clean("/"+c.Prefix), "/"))
}

// subnets returns the subnets of the peers; none of a nil checkpoint.
func (c *checkpoint) subnets() []netip.Prefix {
	if c == nil {
		return nil
	}
	var all []netip.Prefix
	for _, l := range c.Peers {
		all = append(all, l.Parts()...)
	}
	return all
}

// checkpointFile is the checkpoint's file, of one network in one store. Only its
// owner can read it: the configuration may hold a secret, such as a preshared key.
type checkpointFile struct {
	path  string
	store store.Config
}

// newCheckpointFile names the file after the prefix: a host may be in several
// networks, with a daemon for each.
func newCheckpointFile(o *Options) *checkpointFile {
	return &checkpointFile{filepath.Join(o.stateDir, "network-"+url.PathEscape(o.store.Config().Network())), o.store.Config()}
}

// load returns the last run's checkpoint. It returns nil without one, and for one
// that is damaged or of another network or store.
func (f *checkpointFile) load() *checkpoint {
	c, err := readCheckpoint(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
	case !c.Lease.IsValid() || slices.Contains(c.Peers, nil):
		err = fmt.Errorf("read checkpoint %s: %w", f.path, errDamaged)
	case !f.matches(&c):
		err = fmt.Errorf("it is of prefix=%s endpoints=%v api=%s", c.Prefix, c.Endpoints, c.API)
	default:
		return &c
	}
	log.Warningf("ignore the checkpoint of the last run reason=%q", err)
	return nil
}

// matches reports whether c is of the network and the store that the flags name. A
// cluster that has grown or lost a member is the same store.
func (f *checkpointFile) matches(c *checkpoint) bool {
	common := slices.ContainsFunc(c.Endpoints, func(e string) bool { return slices.Contains(f.store.Servers(), e) })
	return c.Prefix == f.store.Network() && common && (f.store.API == store.APIAuto || f.store.API == c.API)
}

// save fills in the store that c is of, and replaces the file by c.
func (f *checkpointFile) save(c checkpoint) error {
	c.Prefix, c.Endpoints = f.store.Network(), f.store.Servers()
	return writeCheckpoint(f.path, c)
}

// remove removes the file; it may be missing.
func (f *checkpointFile) remove() error {
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove checkpoint of lost lease: %w", err)
	}
	return nil
}

// writeCheckpoint replaces the file at path by c's JSON, and makes its folder if
// it is missing. After a crash of the host the file is the old or the new one.
func writeCheckpoint(path string, c checkpoint) error {
	body, err := json.Marshal(c)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = atomicfile.Write(path, fmt.Appendf(nil, "%s%x\n%s", checkpointHeader, sha256.Sum256(body), body), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return nil
}

// readCheckpoint reads the file at path. Errors: fs.ErrNotExist, errDamaged, or the
// failure to read.
func readCheckpoint(path string) (c checkpoint, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read checkpoint: %w", err)
	}
	line, body, _ := bytes.Cut(text, []byte("\n"))
	if string(line) != fmt.Sprintf("%s%x", checkpointHeader, sha256.Sum256(body)) {
		return c, fmt.Errorf("read checkpoint %s: %w", path, errDamaged)
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return c, fmt.Errorf("read checkpoint %s: %w: %w", path, errDamaged, err)
	}
	return c, nil
}

// lastRun is what earlier runs left in files.
type lastRun struct {
	env        subnetfile.Env // zero without subnet.env
	checkpoint *checkpoint    // nil without one of use
}

// readLastRun reads subnet.env and the checkpoint. A damaged file is logged and
// ignored.
func readLastRun(o *Options, f *checkpointFile) lastRun {
	env, err := subnetfile.Read(o.subnetFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warningf("ignore previous subnet: %v", err)
	}
	return lastRun{env, f.load()}
}

// subnet returns the subnet of the last run of a family; zero if it is not known. A
// reboot often empties the folder of subnet.env; the checkpoint remains.
func (r lastRun) subnet(f inet.Family) netip.Prefix {
	written := subnet.Lease{Subnet: r.env.Subnet, IPv6Subnet: r.env.IPv6Subnet}.SubnetOf(f)
	if written.IsValid() || r.checkpoint == nil {
		return written
	}
	return r.checkpoint.Lease.SubnetOf(f) // promise: checkpoint-names-subnet
}

// networks returns the known networks of earlier runs that are not those of config.
func (r lastRun) networks(config *subnet.Config) []netip.Prefix {
	former := []netip.Prefix{r.env.Network, r.env.IPv6Network}
	if r.checkpoint != nil {
		former = append(former, r.checkpoint.Config.Network, r.checkpoint.Config.IPv6.Network)
	}
	former = slices.DeleteFunc(former, func(p netip.Prefix) bool {
		return !p.IsValid() || p == config.Network || p == config.IPv6.Network
	})
	slices.SortFunc(former, netip.Prefix.Compare)
	return slices.Compact(former)
}

// checkpointWriter saves lease and peers while the network runs.
type checkpointWriter struct {
	file  *checkpointFile
	state *state
	peers *peers

	now     func() clock.Timestamp
	saved   checkpoint
	version uint64 // of the peers that were saved

	pauses pauses    // after failed writes
	next   time.Time // there is no write before, unless Run ends
}

type pauses interface {
	NextBackOff() time.Duration
	Reset()
}

// newCheckpointWriter returns a writer for a member: state has a manager with a
// lease. opened is the store's.
func newCheckpointWriter(f *checkpointFile, s *state, p *peers, opened store.Config) *checkpointWriter {
	pauses := backoff.New()
	pauses.InitialInterval, pauses.MaxInterval = checkpointInterval, maxCheckpointPause
	saved := checkpoint{API: opened.API, StorePrefix: opened.Prefix}
	return &checkpointWriter{file: f, state: s, peers: p, now: clock.Now, saved: saved, pauses: pauses}
}

// Run saves changes of the peers at once and those of the lease every checkpointInterval,
// as far as checkpointShare permits, and both when ctx ends. It repeats a failed write
// after a growing pause.
func (w *checkpointWriter) Run(ctx context.Context) error {
	for {
		select {
		case <-w.peers.changed:
		case <-time.After(clock.UntilTick(checkpointInterval)):
		case <-ctx.Done():
		}
		select {
		case <-time.After(time.Until(w.next)):
			w.save()
		case <-ctx.Done():
			w.save()
			return nil
		}
	}
}

// save saves the checkpoint if the lease or the peers have changed, or the wall
// clock was set.
func (w *checkpointWriter) save() {
	state, now, version := w.state.get(), w.now(), w.peers.currentVersion()
	status := state.manager.Status()
	if version == w.version && status.Lease.StoredAs(w.saved.Lease) && status.Ends == w.saved.Ends && !now.Stepped(w.saved.Written) {
		return
	}
	c := w.saved
	c.Config, c.Lease, c.Ends, c.Written = *state.config, status.Lease, status.Ends, now
	next := c
	c.Peers = w.peers.leases() // not kept in saved: a peer's lease may go
	began := time.Now()
	if err := w.file.save(c); err != nil {
		pause := w.pauses.NextBackOff()
		w.next = time.Now().Add(pause)
		ratelog.Warningf("save lease and peers: %v; a start while the store is away has to wait for the store; try again in %v",
			err, pause.Round(time.Second))
		return
	}
	w.next = time.Now().Add(min(checkpointShare*time.Since(began), checkpointInterval))
	w.saved, w.version = next, version
	w.pauses.Reset()
}
