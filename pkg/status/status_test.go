package status

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds each wait of a test.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	// The log package starts a goroutine for its files when it is loaded.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

// starting returns the snapshot of a daemon without a lease.
func starting() Snapshot {
	return Snapshot{NotReady: []string{"waiting for a network configuration", "no lease yet"}}
}

func working() Snapshot {
	return Snapshot{
		Node: Node{PublicIP: netip.MustParseAddr("192.0.2.10"), Iface: "eth0", MTU: 1500},
		Lease: &Lease{
			Subnet:    netip.MustParsePrefix("10.5.72.0/24"),
			ExpiresAt: time.Date(2100, 1, 2, 3, 4, 5, 500e6, time.UTC),
		},
		Store: Store{API: "3", Reachable: true, Since: time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)},
		Backend: &Backend{
			FastPath: &FastPath{Containers: 1, TxPackets: 80, RxPackets: 70, LongWay: map[string]uint64{"first_packets": 16}},
			Type:     "udp", DataPath: "offload", DataPathReason: "the kernel has no tcx", MTU: 1472,
			Drops: map[string]uint64{"no_route": 3, "malformed": 0},
			Peers: []Peer{{
				Subnet: netip.MustParsePrefix("10.5.9.0/24"), PublicIP: netip.MustParseAddr("192.0.2.11"),
				TxPackets: 1, TxBytes: 200, RxPackets: 3, RxBytes: 400,
				Probe: &Probe{RTTSeconds: 0.00025, Loss: 0.05, MTU: 1472, Since: time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)},
			}},
		},
		BadLeaseData: 5,
		HeldPeers:    2,
		LostLogLines: 7,

		ConfigRefused: "takes effect at the next start",
	}
}

func config(s Snapshot) Config {
	return Config{Version: "1.2.3", Began: time.Now().Add(-time.Hour), Source: func() Snapshot { return s }}
}

func get(t *testing.T, h http.Handler, path string) (code int, body string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestHealthAndReadiness(t *testing.T) {
	well := working()
	well.HeldPeers, well.ConfigRefused = 0, ""
	alone := well
	alone.FamilyProblems = []string{"this host carries no IPv6: no address"}
	lossy := well
	lossy.Losses = []string{"peers are not probed: it may not"}
	away := well
	away.Store.Reachable = false
	down := away
	down.NotReady = []string{"device flannel0 is down"}
	peers := well
	b := *well.Backend
	peers.Backend = &b
	for i := range 8 {
		p := Peer{Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i), 0}), 24), Probe: &Probe{Silent: true}}
		if i == 0 {
			p.Problem = "its VNI is 2, ours is 1"
		}
		b.Peers = append(b.Peers, p)
	}
	for name, tt := range map[string]struct {
		s      Snapshot
		readyz int
		body   string
	}{
		"starting":   {starting(), 503, "waiting for a network configuration\nno lease yet\n"},
		"well":       {well, 200, "ok\n"},
		"one family": {alone, 200, "ok\nwarning: this host carries no IPv6: no address\n"},
		"a loss":     {lossy, 200, "ok\nwarning: peers are not probed: it may not\n"},
		"store away": {away, 200, "ok\nwarning: the store has not answered since 2024-05-06T07:08:09Z; peers are as they were then\n"},
		"held and refused": {working(), 200, "ok\nwarning: 2 peers disappeared from the store at once; packets still go to them\n" +
			"warning: a changed configuration is not in force: takes effect at the next start\n"},
		"device down": {down, 503, "device flannel0 is down\nwarning: the store has not answered since 2024-05-06T07:08:09Z; peers are as they were then\n"},
		"peers": {peers, 200, "ok\nwarning: 1 of 9 peers cannot be reached: 10.5.0.0/24 (its VNI is 2, ours is 1)\n" +
			"warning: 7 of 9 peers do not answer through the overlay: 10.5.1.0/24, 10.5.2.0/24, 10.5.3.0/24, 10.5.4.0/24, 10.5.5.0/24, …\n"},
	} {
		t.Run(name, func(t *testing.T) {
			all := New(config(tt.s)).handler
			alone := NewHealthz("", config(tt.s).Source).handler
			for _, h := range []http.Handler{all, alone} {
				if code, body := get(t, h, "/healthz"); code != 200 || body != "ok\n" {
					t.Errorf("/healthz: %d %q", code, body)
				}
				if code, body := get(t, h, "/readyz"); code != tt.readyz || body != tt.body {
					t.Errorf("/readyz: %d %q, want %d %q", code, body, tt.readyz, tt.body)
				}
			}
		})
	}
}

func TestHealthzListenerHasNothingElse(t *testing.T) {
	h := NewHealthz("", config(working()).Source).handler
	for _, path := range []string{"/", "/metrics", "/api/v1/status"} {
		if code, _ := get(t, h, path); code != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, code)
		}
	}
}

func TestReadOnly(t *testing.T) {
	h := New(config(working())).handler
	for _, path := range []string{"/", "/healthz", "/readyz", "/metrics", "/api/v1/status"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d, want 405", path, w.Code)
		}
	}
	if code, _ := get(t, h, "/other"); code != http.StatusNotFound {
		t.Errorf("/other: %d, want 404", code)
	}
}

const workingJSON = `{
  "version": "1.2.3",
  "uptime_seconds": 3600,
  "ready": true,
  "not_ready": [],
  "node": {
    "public_ip": "192.0.2.10",
    "iface": "eth0",
    "mtu": 1500
  },
  "lease": {
    "subnet": "10.5.72.0/24",
    "expires_at": "2100-01-02T03:04:05.5Z",
    "reserved": false
  },
  "store": {
    "api": "3",
    "reachable": true,
    "since": "2024-05-06T07:08:09Z"
  },
  "backend": {
    "type": "udp",
    "datapath": "offload",
    "datapath_reason": "the kernel has no tcx",
    "mtu": 1472,
    "drops": {
      "malformed": 0,
      "no_route": 3
    },
    "fastpath": {
      "containers": 1,
      "tx_packets": 80,
      "rx_packets": 70,
      "long_way": {
        "first_packets": 16
      }
    },
    "peers": [
      {
        "subnet": "10.5.9.0/24",
        "public_ip": "192.0.2.11",
        "tx_packets": 1,
        "tx_bytes": 200,
        "rx_packets": 3,
        "rx_bytes": 400,
        "probe": {
          "rtt_seconds": 0.00025,
          "loss": 0.05,
          "mtu": 1472,
          "silent": false,
          "since": "2024-05-06T07:08:09Z"
        }
      }
    ]
  },
  "bad_lease_data": 5,
  "config_refused": "takes effect at the next start",
  "held_peers": 2,
  "lost_log_lines": 7,
  "events": []
}
`

const startingJSON = `{
  "version": "1.2.3",
  "uptime_seconds": 3600,
  "ready": false,
  "not_ready": [
    "waiting for a network configuration",
    "no lease yet"
  ],
  "node": {
    "public_ip": "",
    "iface": "",
    "mtu": 0
  },
  "lease": null,
  "store": {
    "api": "",
    "reachable": false
  },
  "backend": null,
  "bad_lease_data": 0,
  "config_refused": "",
  "held_peers": 0,
  "lost_log_lines": 0,
  "events": []
}
`

func TestAPI(t *testing.T) {
	bare := working()
	bare.Backend = &Backend{Type: "alloc"}
	for name, tt := range map[string]struct {
		s    Snapshot
		want string
	}{
		"working":   {working(), workingJSON},
		"starting":  {starting(), startingJSON},
		"no counts": {bare, "\"drops\": {},\n    \"peers\": []\n"},
	} {
		if code, body := get(t, New(config(tt.s)).handler, "/api/v1/status"); code != 200 || !strings.Contains(body, tt.want) {
			t.Errorf("%s: %d\n%s\nwant\n%s", name, code, body, tt.want)
		}
	}
}

func TestRun(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	entered, hang := make(chan struct{}), make(chan struct{})
	c := config(working())
	c.Source = func() Snapshot {
		close(entered)
		<-hang
		return working()
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- New(c).serve(ctx, ln) }()

	// Run ends while a request hangs.
	asked := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String()+"/healthz", nil)
		if err != nil {
			asked <- err
			return
		}
		resp, err := new(http.Transport).RoundTrip(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		asked <- err
	}()
	<-entered
	cancel()
	select {
	case err := <-ran:
		if err != nil {
			t.Errorf("Run = %v, want nil after ctx ended", err)
		}
	case <-time.After(patience):
		t.Error("Run did not end")
	}
	close(hang)
	if err := <-asked; err == nil {
		t.Error("the hanging request was answered after Run had ended")
	}
}

func TestAddressInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := config(working())
	c.Addr = ln.Addr().String()
	for flag, s := range map[string]*Server{"-status-addr": New(c), "-healthz-port": NewHealthz(c.Addr, c.Source)} {
		err := s.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), flag) || !strings.Contains(err.Error(), c.Addr) || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("Run = %v, want an error that names %s, the address, and the cause", err, flag)
		}
	}
}
