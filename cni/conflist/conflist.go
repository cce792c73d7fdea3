// Package conflist publishes the configuration of CNI to the container engine
// while this host can connect pods, and takes it away while it cannot. An engine
// that has a configuration reports the node as ready, and starts pods. Only
// engines of CNI 1.1 ask the plugin (STATUS).
package conflist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/atomicfile"
	"github.com/coreos/flannel/pkg/reconcile"
)

// FileName is the name of the published file. Engines take the first file by name.
const FileName = "10-flannel.conflist"

const (
	every = 30 * time.Second // between two comparisons without a change
	mode  = 0o644
)

// Keeper keeps the published file as it has to be: equal to the source, or absent.
// It does not touch the file before the first call of Publish or Withdraw. It
// never removes the folder: containerd 1.6 watches the folder that it found at its start.
type Keeper struct {
	source, path string
	changed      reconcile.Signal

	mu     sync.Mutex // guards what follows, and is held during a write
	state  state
	warned []string // files that sort before ours, at the last warning
}

type state int

const (
	untouched state = iota
	published
	withdrawn
)

// New returns a Keeper that copies the file source to the engine's folder. Without
// a source the Keeper does nothing.
func New(source, folder string) *Keeper {
	return &Keeper{source: source, path: filepath.Join(folder, FileName), changed: reconcile.NewSignal()}
}

// Publish makes Run write the file, and keep it.
func (k *Keeper) Publish() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = published
	k.changed.Set()
}

// Withdraw removes the file. Run keeps it away.
func (k *Keeper) Withdraw() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = withdrawn
	return k.settle()
}

// Run keeps the file until ctx ends. The file stays then: pods on a host are
// connected while its daemon is replaced.
func (k *Keeper) Run(ctx context.Context) error {
	if k.source == "" {
		<-ctx.Done()
		return nil
	}
	return reconcile.Loop{Task: "publish the CNI configuration " + k.path, Changed: k.changed, Every: every, Step: func(context.Context) error {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.settle()
	}}.Run(ctx)
}

// settle makes the file what the state demands.
func (k *Keeper) settle() error {
	switch {
	case k.source == "" || k.state == untouched:
		return nil
	case k.state == published:
		k.warnOfOthers()
		return k.publish()
	}
	err := os.Remove(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		log.Infof("withdrew the CNI configuration path=%s", k.path)
	}
	return err
}

func (k *Keeper) publish() error {
	want, err := os.ReadFile(k.source)
	if err != nil {
		return err
	}
	list, err := libcni.NetworkConfFromBytes(want)
	if err == nil && len(list.Plugins) == 0 { // promise: broken-configuration-stays-away
		err = errors.New("it has no plugins")
	}
	if err != nil { // the engine would take the node for broken
		return fmt.Errorf("parse %s: %w", k.source, err)
	}
	got, err := os.ReadFile(k.path)
	if err == nil && bytes.Equal(got, want) {
		return nil
	}
	if err := atomicfile.Write(k.path, want, mode); err != nil {
		return err
	}
	log.Infof("published the CNI configuration path=%s", k.path)
	return nil
}

// warnOfOthers logs the files that the engine prefers, when they change.
func (k *Keeper) warnOfOthers() {
	others := before(k.path)
	if slices.Equal(others, k.warned) {
		return
	}
	k.warned = others
	if len(others) > 0 {
		log.Warningf("pods get another network: the container engine takes the first CNI configuration by name files=%q ours=%s", others, k.path)
	}
}

// Files returns the files of CNI in a folder, by name: an engine takes the first. There
// are none if there is no folder.
func Files(folder string) ([]string, error) {
	return libcni.ConfFiles(folder, []string{".conf", ".conflist", ".json"}) // os.ReadDir sorts
}

// before returns the files that an engine prefers to the file at path: those of
// CNI in its folder that sort before it.
func before(path string) (others []string) {
	files, err := Files(filepath.Dir(path))
	if err != nil {
		return nil
	}
	for _, f := range files {
		if filepath.Base(f) < filepath.Base(path) {
			others = append(others, f)
		}
	}
	return others
}
