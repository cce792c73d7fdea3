package offloadrepair

import (
	"errors"
	"maps"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/offloadprobe"
)

// repaired returns a host on which a run has turned tunnelChecksum off, and the run's state
// folder.
func repaired(t *testing.T) (h *host, stateDir string) {
	t.Helper()
	h, stateDir = newHost(offloadprobe.Checksum, tunnelChecksum), t.TempDir()
	h.run(t, stateDir, 9*time.Minute)
	h.turned(t, tunnelChecksum.Off())
	return h, stateDir
}

// A device that was made anew has all features on. The switch is turned again.
func TestDeviceMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, dir := repaired(t)
		h.set(func(h *host) { h.on[tunnelChecksum] = true })
		h.run(t, dir, 9*time.Minute)
		h.turned(t, tunnelChecksum.Off())
	})
}

// A run without -offload-repair turns the switch on again. A note of an earlier boot
// is none.
func TestRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, dir := repaired(t)
		n, err := readNote(NotePath(dir))
		if err != nil || n == nil {
			t.Fatalf("note %+v, %v", n, err)
		}
		restored, err := Restore(h, dir)
		if err != nil || restored == nil || restored.Switch != tunnelChecksum {
			t.Errorf("restored %+v, %v", restored, err)
		}
		h.turned(t, tunnelChecksum.On())
		n.Boot = "another"
		if err := n.write(NotePath(dir)); err != nil {
			t.Fatal(err)
		}
		if restored, err = Restore(h, dir); err != nil || restored != nil {
			t.Errorf("restored %+v, %v", restored, err)
		}
		h.turned(t)
	})
}

// A run that was killed leaves the note of a switch that may be off or on, and that may
// end the fault or not. The next run ends with the switch that ends the fault.
func TestKilledRun(t *testing.T) {
	for name, tt := range map[string]struct {
		layer offloadprobe.Layer
		on    bool // the switch of the note
		ends  Switch
		want  []string
	}{
		"before the result":              {offloadprobe.Checksum, false, uplinkChecksum, []string{tunnelChecksum.On(), uplinkChecksum.Off()}},
		"before the result, at receiver": {offloadprobe.ReceiveMerging, false, uplinkGRO, []string{tunnelGRO.On(), uplinkGRO.Off()}},
		"before the turn":                {offloadprobe.Checksum, true, tunnelChecksum, []string{tunnelChecksum.Off()}},
		"before the turn, at receiver":   {offloadprobe.ReceiveMerging, true, tunnelGRO, []string{tunnelGRO.Off()}},
		"with the fault ended":           {offloadprobe.Checksum, false, tunnelChecksum, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(tt.layer, tt.ends)
				noted := tunnelChecksum
				if AtReceiver(tt.layer) {
					noted = tunnelGRO
				}
				h.set(func(h *host) { h.on[noted] = tt.on })
				dir := t.TempDir()
				left := Note{Switch: noted, Layer: tt.layer, Since: time.Now(), Boot: clock.Now().Boot}
				if err := left.write(NotePath(dir)); err != nil {
					t.Fatal(err)
				}
				r := h.run(t, dir, 9*time.Minute)
				h.turned(t, tt.want...)
				if n := r.Turned(); n == nil || n.Switch != tt.ends {
					t.Errorf("the switch that is off is %+v", n)
				}
			})
		})
	}
}

// A start before a peer has answered turns nothing, and shows the switch that is off.
func TestStartWithoutAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, dir := repaired(t)
		h.set(func(h *host) { h.peers = 0 })
		r := h.run(t, dir, 3*time.Hour)
		h.turned(t)
		if n := r.Turned(); n == nil || n.Switch != tunnelChecksum {
			t.Errorf("the switch that is off is %+v", n)
		}
	})
}

// A switch that another turns on, or whose device goes, is no longer one that is off.
func TestSwitchOfAnother(t *testing.T) {
	for name, change := range map[string]func(*host){
		"turned on": func(h *host) { h.layer, h.on[tunnelChecksum] = "", true },
		"gone": func(h *host) {
			h.layer = ""
			maps.DeleteFunc(h.on, func(s Switch, _ bool) bool { return s.Device == tunnelChecksum.Device })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(offloadprobe.Checksum, tunnelChecksum)
				dir := t.TempDir()
				r := h.runWith(t, dir, 9*time.Minute, func(d time.Duration) {
					if d == 10*interval {
						h.set(change)
					}
				})
				h.turned(t, tunnelChecksum.Off())
				if n := r.Turned(); n != nil {
					t.Errorf("%+v is off", n)
				}
				if _, err := os.Stat(NotePath(dir)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the note: %v", err)
				}
			})
		})
	}
}
