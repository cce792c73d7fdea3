package offloadrepair

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/coreos/flannel/pkg/inet"
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
	layer   offloadprobe.Layer
	ends    []Switch // switches that end the fault while they are off
	peers   int
	faulty  int // peers that have the fault
	results map[netip.Prefix]offloadprobe.Result
	turns   []string
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
		return nil, errors.New("no such device")
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
	h.on[s] = on
	command := s.Off()
	if on {
		command = s.On()
	}
	h.turns = append(h.turns, command)
	return nil
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
	h.results = make(map[netip.Prefix]offloadprobe.Result)
	ended := slices.ContainsFunc(h.ends, func(s Switch) bool { return !h.on[s] })
	for i := range h.peers {
		r := offloadprobe.Result{Known: true}
		if f := (offloadprobe.Fault{Layer: h.layer}); i < h.faulty && !ended {
			if AtReceiver(h.layer) {
				r.Rx = f
			} else {
				r.Tx = f
			}
		}
		h.results[netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i), 0}), 24)] = r
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
	r := New(Config{
		Prober: h, Features: h, StateDir: dir, Interval: interval,
		Devices: func(netip.Prefix) (Devices, error) { return Devices{"flannel.1", true, "eth0", inet.IPv4}, nil },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- r.Run(ctx) }()
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-time.After(interval)
		h.probe()
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
				r := h.run(t, t.TempDir(), 30*time.Minute)
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
		h.run(t, t.TempDir(), 30*time.Minute)
		h.turned(t, tunnelChecksum.Off(), tunnelChecksum.On(), uplinkChecksum.Off())
	})
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
				h.run(t, dir, 150*time.Minute) // one trial after an hour, the next one after two more
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

// A device that was made anew has all features on. The switch is turned again.
func TestDeviceMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(offloadprobe.Checksum, tunnelChecksum)
		dir := t.TempDir()
		h.run(t, dir, 10*time.Minute)
		h.set(func(h *host) { h.on[tunnelChecksum] = true })
		h.run(t, dir, 10*time.Minute)
		h.turned(t, tunnelChecksum.Off(), tunnelChecksum.Off())
	})
}

// A run without -offload-repair turns the switch on again. A note of an earlier boot
// is none.
func TestRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(offloadprobe.Checksum, tunnelChecksum)
		dir := t.TempDir()
		h.run(t, dir, 10*time.Minute)
		h.turned(t, tunnelChecksum.Off())
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

func TestCandidates(t *testing.T) {
	h := newHost("")
	for _, tt := range []struct {
		layer   offloadprobe.Layer
		devices Devices
		want    []Switch
	}{
		{offloadprobe.Segmentation, Devices{"flannel.1", true, "eth0", inet.IPv4}, []Switch{segmentation, tunnelChecksum, uplinkChecksum}},
		{offloadprobe.Segmentation, Devices{Encapsulated: true, Uplink: "eth0"}, []Switch{segmentation, uplinkChecksum}},
		{offloadprobe.Segmentation, Devices{Uplink: "eth0"}, []Switch{uplinkChecksum}},
		{offloadprobe.TCPSegmentation, Devices{Uplink: "eth0"}, []Switch{{"eth0", "tx-tcp-segmentation"}}},
		{offloadprobe.ReceiveMerging, Devices{"flannel.1", true, "eth0", inet.IPv4}, []Switch{tunnelGRO, uplinkGRO}},
		{offloadprobe.PathMTU, Devices{"flannel.1", true, "eth0", inet.IPv4}, nil},
	} {
		if got, err := Candidates(h, tt.layer, tt.devices); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s with %+v: %v, %v; want %v", tt.layer, tt.devices, got, err, tt.want)
		}
	}
	if _, err := Candidates(h, offloadprobe.Checksum, Devices{Tunnel: "gone", Uplink: "eth0"}); err == nil {
		t.Error("no error for a device that is gone")
	}
}

// A fault of all peers of one family is one to repair, however many peers the other
// family has.
func TestProblemOfOneFamily(t *testing.T) {
	h := newHost(offloadprobe.Checksum)
	h.set(func(h *host) { h.peers, h.faulty = 5, 0 })
	r := New(Config{Prober: h})
	ipv6 := netip.MustParsePrefix("fd00:5:0:1::/64")
	h.results[ipv6] = offloadprobe.Result{Known: true, Tx: offloadprobe.Fault{Layer: offloadprobe.Checksum}}
	if l, peer := r.problem(); l != offloadprobe.Checksum || peer != ipv6 {
		t.Errorf("layer %q of %v", l, peer)
	}
	h.results[netip.MustParsePrefix("fd00:5:0:2::/64")] = offloadprobe.Result{Known: true}
	h.results[netip.MustParsePrefix("fd00:5:0:3::/64")] = offloadprobe.Result{Known: true}
	if l, peer := r.problem(); l != "" {
		t.Errorf("layer %q of %v, which two of three peers do not have", l, peer)
	}
}

// The features of packets of TCP over IPv6 have names of their own.
func TestCandidatesOfIPv6(t *testing.T) {
	h := newHost("")
	for _, feature := range []string{"tx-tcp6-segmentation", "tx-checksum-ipv6", "tx-checksum-ipv4"} {
		h.on[Switch{"eth0", feature}] = true
	}
	for l, want := range map[offloadprobe.Layer][]Switch{
		offloadprobe.TCPSegmentation: {{"eth0", "tx-tcp6-segmentation"}},
		offloadprobe.Checksum:        {{"eth0", "tx-checksum-ip-generic"}, {"eth0", "tx-checksum-ipv6"}},
	} {
		got, err := Candidates(h, l, Devices{Uplink: "eth0", Family: inet.IPv6})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", l, got, err, want)
		}
	}
}
