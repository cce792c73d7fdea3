package offloadrepair

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/offloadprobe"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

const interval = 24 * time.Second

// host has peers, devices with features, and a fault that some switches end. It is
// Prober and Features.
type host struct {
	mu      sync.Mutex
	on      map[Switch]bool
	fixed   []Switch // that the driver does not change
	busy    int      // how many times no switch can be turned on
	stuck   int      // how many times no switch can be turned off
	away    int      // peers that do not answer
	layer   offloadprobe.Layer
	ends    []Switch // switches that end the fault while they are off
	peers   int
	faulty  int // peers that have the fault
	results map[netip.Prefix]offloadprobe.Result
	turns   []string
	round   time.Duration // Round, if not 0
	lag     time.Duration // of the results after a switch of the receiver
	turnAt  time.Time     // the last turn
}

func newHost(layer offloadprobe.Layer, ends ...Switch) *host {
	h := &host{on: make(map[Switch]bool), layer: layer, ends: ends, peers: 2, faulty: 2}
	for _, device := range []string{"eth0", "flannel.1"} {
		for _, feature := range []string{"tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-udp-segmentation", "rx-gro"} {
			h.on[Switch{device, feature}] = true
		}
	}
	h.on[Switch{"eth0", "tx-udp_tnl-segmentation"}] = true
	h.on[Switch{"eth0", "rx-lro"}] = false
	h.probe()
	return h
}

func (h *host) Switchable(device string) (map[string]bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := make(map[string]bool)
	for s, on := range h.on {
		if s.Device == device {
			found[s.Feature] = on
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("read offloads of %s: %w", device, unix.ENODEV)
	}
	return found, nil
}

func (h *host) Switch(device, feature string, on bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Switch{device, feature}
	if slices.Contains(h.fixed, s) {
		return errors.New("the driver does not change it")
	}
	if on && h.busy > 0 {
		h.busy--
		return errors.New("the device is busy")
	}
	if !on && h.stuck > 0 {
		h.stuck--
		return errors.New("the device is busy")
	}
	h.on[s] = on
	command := s.Off()
	if on {
		command = s.On()
	}
	h.turns, h.turnAt = append(h.turns, command), time.Now()
	return nil
}

func (h *host) Round() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return cmp.Or(h.round, interval)
}

func (h *host) Results() map[netip.Prefix]offloadprobe.Result {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.results
}

// Recheck finds what this host's probes find. The receipts of the other direction come
// with the next round (probe).
func (h *host) Recheck(context.Context, bool) {
	if !AtReceiver(h.layer) {
		h.probe()
	}
}

func (h *host) probe() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if AtReceiver(h.layer) && time.Since(h.turnAt) < h.lag {
		return
	}
	before := h.results
	h.results = make(map[netip.Prefix]offloadprobe.Result)
	ended := slices.ContainsFunc(h.ends, func(s Switch) bool { return !h.on[s] })
	for i := range h.peers {
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i), 0}), 24)
		if i < h.away {
			h.results[subnet] = before[subnet]
			continue
		}
		r := offloadprobe.Result{Known: true, TxAt: time.Now(), RxAt: time.Now()}
		if f := (offloadprobe.Fault{Layer: h.layer}); i < h.faulty && !ended {
			if AtReceiver(h.layer) {
				r.Rx = f
			} else {
				r.Tx = f
			}
		}
		h.results[subnet] = r
	}
}

func (h *host) set(change func(*host)) {
	h.mu.Lock()
	change(h)
	h.mu.Unlock()
	h.probe()
}

// run runs a Repairer of h for a time.
func (h *host) run(t *testing.T, dir string, d time.Duration) *Repairer {
	t.Helper()
	return h.runWith(t, dir, d, func(time.Duration) {})
}

// runWith is run with a function that is called in each interval.
func (h *host) runWith(t *testing.T, dir string, d time.Duration, each func(passed time.Duration)) *Repairer {
	t.Helper()
	r := New(Config{
		Prober: h, Features: h, StateDir: dir, Interval: interval,
		Devices: func(netip.Prefix) (Devices, error) {
			return Devices{Tunnel: "flannel.1", Encapsulated: ByKernel, Uplink: "eth0"}, nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- r.Run(ctx) }()
	for passed := time.Duration(0); passed < d; passed += interval {
		<-time.After(interval)
		h.probe()
		each(passed)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	return r
}

func (h *host) turned(t *testing.T, want ...string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(h.turns, want) {
		t.Errorf("turned\n%q, want\n%q", h.turns, want)
	}
	h.turns = nil
}

var (
	tunnelChecksum = Switch{"flannel.1", "tx-checksum-ip-generic"}
	uplinkChecksum = Switch{"eth0", "tx-checksum-ip-generic"}
	segmentation   = Switch{"eth0", "tx-udp_tnl-segmentation"}
	tunnelGRO      = Switch{"flannel.1", "rx-gro"}
	uplinkGRO      = Switch{"eth0", "rx-gro"}
)

// The first switch that ends the fault stays off. Those that did not are on again.
func TestRepair(t *testing.T) {
	for name, tt := range map[string]struct {
		layer offloadprobe.Layer
		ends  Switch
		want  []string
	}{
		"first":              {offloadprobe.Checksum, tunnelChecksum, []string{tunnelChecksum.Off()}},
		"second":             {offloadprobe.Checksum, uplinkChecksum, []string{tunnelChecksum.Off(), tunnelChecksum.On(), uplinkChecksum.Off()}},
		"segmentation":       {offloadprobe.Segmentation, segmentation, []string{segmentation.Off()}},
		"at the receiver":    {offloadprobe.ReceiveMerging, tunnelGRO, []string{tunnelGRO.Off()}},
		"second at receiver": {offloadprobe.ReceiveMerging, uplinkGRO, []string{tunnelGRO.Off(), tunnelGRO.On(), uplinkGRO.Off()}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(tt.layer, tt.ends)
				r := h.run(t, t.TempDir(), 9*time.Minute)
				h.turned(t, tt.want...)
				if n := r.Turned(); n == nil || n.Switch != tt.ends || n.Layer != tt.layer {
					t.Errorf("the switch that is off is %+v", n)
				}
			})
		})
	}
}

// A switch that did not help is turned on again, although that fails at first.
func TestTurnBackFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(offloadprobe.Checksum, uplinkChecksum)
		h.busy = 3
		h.run(t, t.TempDir(), 9*time.Minute)
		h.turned(t, tunnelChecksum.Off(), tunnelChecksum.On(), uplinkChecksum.Off())
	})
}

// A switch that ends the fault stays off although some peers or all do not answer for a
// while after the turn: a device may reset its link then.
func TestPeersAwayAfterTurn(t *testing.T) {
	for _, layer := range []offloadprobe.Layer{offloadprobe.Checksum, offloadprobe.ReceiveMerging} {
		for away := 1; away <= 2; away++ {
			t.Run(fmt.Sprintf("%s, %d of 2", layer, away), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := tunnelChecksum
					if AtReceiver(layer) {
						s = tunnelGRO
					}
					h := newHost(layer, s)
					h.away = away
					<-time.After(interval) // the results are older than the turn
					r := h.runWith(t, t.TempDir(), 9*time.Minute, func(passed time.Duration) {
						if passed == 10*interval {
							h.set(func(h *host) { h.away = 0 })
						}
					})
					h.turned(t, s.Off())
					if n := r.Turned(); n == nil || n.Switch != s {
						t.Errorf("the switch that is off is %+v", n)
					}
				})
			})
		}
	}
}

// A trial ends with the answer of a peer. Silence does not show that the fault is gone.
func TestPeersAwayInTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, dir := repaired(t)
		h.set(func(h *host) { h.on[tunnelChecksum] = true })
		h.run(t, dir, interval)
		h.turned(t, tunnelChecksum.Off())
		h.runWith(t, dir, 40*time.Minute, func(passed time.Duration) {
			switch passed {
			case 10 * interval:
				h.set(func(h *host) { h.away = 2 })
			case 50 * interval: // the trial has begun
				if _, err := os.Stat(NotePath(dir)); err != nil {
					t.Errorf("the note: %v", err)
				}
				h.set(func(h *host) { h.away = 0 })
			}
		})
		h.turned(t, tunnelChecksum.On(), tunnelChecksum.Off())
	})
}

// A trial that cannot turn the switch off, or write the note, goes on until it can.
func TestTrialIsRepeated(t *testing.T) {
	for name, tt := range map[string]struct {
		hinder, free func(*testing.T, *host, string)
	}{
		"busy device": {
			func(_ *testing.T, h *host, _ string) { h.set(func(h *host) { h.stuck = 3 }) },
			func(*testing.T, *host, string) {},
		},
		"state folder": {
			func(t *testing.T, _ *host, note string) { block(t, note) },
			func(t *testing.T, _ *host, note string) { unblock(t, note) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(offloadprobe.Checksum, tunnelChecksum)
				dir := t.TempDir()
				h.runWith(t, dir, 25*time.Minute, func(passed time.Duration) {
					switch passed {
					case 10 * interval:
						tt.hinder(t, h, NotePath(dir))
					case 40 * interval: // the trial has begun
						tt.free(t, h, NotePath(dir))
					}
				})
				h.turned(t, tunnelChecksum.Off(), tunnelChecksum.On(), tunnelChecksum.Off())
			})
		})
	}
}

// A note that cannot be written says nothing about its switch.
func TestNoteCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(offloadprobe.Checksum, tunnelChecksum)
		dir := t.TempDir()
		block(t, NotePath(dir))
		h.runWith(t, dir, 9*time.Minute, func(passed time.Duration) {
			if passed == 10*interval {
				h.turned(t)
				unblock(t, NotePath(dir))
			}
		})
		h.turned(t, tunnelChecksum.Off())
	})
}

// block puts a folder in place of a file, so that nothing writes the file.
func block(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(path+"/full", 0o755); err != nil {
		t.Fatal(err)
	}
}

func unblock(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// Where no switch helps, all are on in the end, and nothing is turned again.
func TestNoSwitchHelps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(offloadprobe.Checksum)
		h.fixed = []Switch{uplinkChecksum}
		dir := t.TempDir()
		r := h.run(t, dir, 5*time.Hour)
		h.turned(t, tunnelChecksum.Off(), tunnelChecksum.On())
		if n := r.Turned(); n != nil {
			t.Errorf("%+v is off", n)
		}
		if _, err := os.Stat(NotePath(dir)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the note: %v", err)
		}
	})
}

// A fault without a switch, and one of few peers, turn nothing.
func TestNothingToTurn(t *testing.T) {
	for name, change := range map[string]func(*host){
		"path MTU":      func(h *host) { h.layer = offloadprobe.PathMTU },
		"ECN":           func(h *host) { h.layer = offloadprobe.ECN },
		"few peers":     func(h *host) { h.peers, h.faulty = 5, 2 },
		"no peer":       func(h *host) { h.peers, h.faulty = 0, 0 },
		"fault is away": func(h *host) { h.layer = "" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(offloadprobe.Checksum, tunnelChecksum)
				h.set(change)
				h.run(t, t.TempDir(), time.Hour)
				h.turned(t)
			})
		})
	}
}

// The switch is turned on at times. It stays on if the fault is gone. Otherwise the
// next trial is later.
func TestTrial(t *testing.T) {
	for _, layer := range []offloadprobe.Layer{offloadprobe.Checksum, offloadprobe.ReceiveMerging} {
		t.Run(string(layer), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := tunnelChecksum
				if AtReceiver(layer) {
					s = tunnelGRO
				}
				h := newHost(layer, s)
				dir := t.TempDir()
				h.run(t, dir, 25*time.Minute) // one trial after ten minutes, the next one after twenty more
				h.turned(t, s.Off(), s.On(), s.Off())
				h.set(func(h *host) { h.layer = "" })
				r := h.run(t, dir, 2*time.Hour) // the note tells the next run
				h.turned(t, s.On())
				if n := r.Turned(); n != nil {
					t.Errorf("%+v is off", n)
				}
				if n, err := readNote(NotePath(dir)); n != nil || err != nil {
					t.Errorf("note %+v, %v", n, err)
				}
			})
		})
	}
}

// The results of a switch of the receiver come with the round of the probes, which takes
// long with many peers.
func TestRepairAtReceiverOfManyPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(offloadprobe.ReceiveMerging, tunnelGRO)
		h.set(func(h *host) { h.round, h.lag = 10*interval, 15*interval })
		r := h.run(t, t.TempDir(), 90*time.Minute)
		h.turned(t, tunnelGRO.Off())
		if n := r.Turned(); n == nil || n.Switch != tunnelGRO {
			t.Errorf("the switch that is off is %+v", n)
		}
	})
}

// A fault of all peers of one family is one to repair, however many peers the other
// family has.
func TestProblemOfOneFamily(t *testing.T) {
	h := newHost(offloadprobe.Checksum)
	h.set(func(h *host) { h.peers, h.faulty = 5, 0 })
	r := New(Config{Prober: h})
	ipv6 := netip.MustParsePrefix("fd00:5:0:1::/64")
	h.results[ipv6] = offloadprobe.Result{Known: true, Tx: offloadprobe.Fault{Layer: offloadprobe.Checksum}}
	if l, peer := r.problem(time.Time{}); l != offloadprobe.Checksum || peer != ipv6 {
		t.Errorf("layer %q of %v", l, peer)
	}
	h.results[netip.MustParsePrefix("fd00:5:0:2::/64")] = offloadprobe.Result{Known: true}
	h.results[netip.MustParsePrefix("fd00:5:0:3::/64")] = offloadprobe.Result{Known: true}
	if l, peer := r.problem(time.Time{}); l != "" {
		t.Errorf("layer %q of %v, which two of three peers do not have", l, peer)
	}
}

// Peers whose check has failed, and that wait for a diagnosis, are not healthy ones.
func TestProblemWithSuspects(t *testing.T) {
	h := newHost(offloadprobe.Checksum)
	h.set(func(h *host) { h.peers, h.faulty = 50, 4 })
	for subnet, result := range h.results {
		result.Suspect = result.Tx.Layer == ""
		h.results[subnet] = result
	}
	if l, _ := New(Config{Prober: h}).problem(time.Time{}); l != offloadprobe.Checksum {
		t.Errorf("layer %q", l)
	}
}
