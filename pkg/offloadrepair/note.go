package offloadrepair

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/flannel/pkg/atomicfile"
	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/offloadprobe"
)

// Note is the switch that a Repairer has turned off, as it is in the state folder. The
// note is written before the switch is turned, so that no run forgets one.
type Note struct {
	Switch
	// Layer is that of the fault. Since is when the switch was turned.
	Layer offloadprobe.Layer `json:"layer"`
	Since time.Time          `json:"since"`
	// Boot identifies the boot: a reboot turns all switches on.
	Boot string `json:"boot"`
}

// NotePath returns the path of the note in a state folder.
func NotePath(stateDir string) string { return filepath.Join(stateDir, "offload-repair.json") }

// readNote returns the note of this boot; nil: there is none.
func readNote(path string) (*Note, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read note of a turned switch: %w", err)
	}
	n := new(Note)
	if err := json.Unmarshal(data, n); err != nil {
		return nil, fmt.Errorf("read note of a turned switch %s: %w; find the switch with \"ethtool -k\", turn it on, and remove the file", path, err)
	}
	if n.Boot != clock.Now().Boot || n.Device == "" || n.Feature == "" {
		return nil, nil
	}
	return n, nil
}

func (n *Note) write(path string) error {
	data, err := json.Marshal(n)
	if err == nil {
		err = atomicfile.Write(path, append(data, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("note the switch %s of %s: %w", n.Feature, n.Device, err)
	}
	return nil
}

func removeNote(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove note of a turned switch: %w", err)
	}
	return nil
}

// Left returns the note in a state folder of a switch that is off, nil for none.
func Left(f Features, stateDir string) (*Note, error) {
	n, err := readNote(NotePath(stateDir))
	if n == nil || err != nil {
		return nil, err
	}
	p, err := positionOf(f, n.Switch)
	if err != nil || p != off {
		return nil, err
	}
	return n, nil
}

// Restore turns the switch of the note in a state folder on again, and removes the
// note. It returns what it turned, nil for nothing.
func Restore(f Features, stateDir string) (*Note, error) {
	n, err := Left(f, stateDir)
	if err != nil {
		return nil, err
	}
	if n != nil {
		if err := f.Switch(n.Device, n.Feature, true); err != nil {
			return nil, err
		}
	}
	return n, removeNote(NotePath(stateDir))
}
