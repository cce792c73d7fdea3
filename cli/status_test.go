package cli

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/status"
)

// daemonOf serves the status of a daemon.
func daemonOf(t *testing.T, s status.Snapshot) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		_ = printJSON(w, status.Report{Version: "1", UptimeSeconds: 61, Ready: len(s.NotReady) == 0, Snapshot: s})
	})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if len(s.NotReady) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(strings.Join(s.NotReady, "\n")))
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// call runs a command line.
func call(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = Run(t.Context(), &Program{Stdout: &stdout, Stderr: &stderr, Version: "1", DaemonFlags: daemonFlags}, args)
	return code, stdout.String(), stderr.String()
}

func TestStatus(t *testing.T) {
	ready := status.Snapshot{
		Lease: &status.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), ExpiresAt: time.Now().Add(time.Hour)},
		Backend: &status.Backend{Type: "udp", MTU: 1472, Drops: map[string]uint64{"no_route": 3, "other": 0},
			Peers: []status.Peer{{Subnet: netip.MustParsePrefix("10.5.2.0/24"), PublicIP: netip.MustParseAddr("192.0.2.2"), TxBytes: 2048, Problem: "gone"}}},
	}
	addr := daemonOf(t, ready)
	code, out, errs := call(t, "status", "-status-addr="+addr)
	if code != exitOK || errs != "" {
		t.Fatalf("code %d, %s", code, errs)
	}
	for _, want := range []string{"ready", "10.5.1.0/24, expires in ", "1, 1 with problems (10.5.2.0/24 gone)", "no_route 3", "up 1m1s"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "other") || strings.Contains(out, "\x1b") {
		t.Errorf("a zero or a colour in\n%s", out)
	}
	if code, out, _ := call(t, "peers", "-status-addr="+addr); code != exitOK || !strings.Contains(out, "10.5.2.0/24   192.0.2.2   -     -      -     2 KiB   0 B        -      gone") {
		t.Errorf("code %d\n%s", code, out)
	}
	if code, _, errs := call(t, "wait", "-status-addr="+addr); code != exitOK {
		t.Errorf("wait: code %d, %s", code, errs)
	}
}

func TestStatusNotReady(t *testing.T) {
	addr := daemonOf(t, status.Snapshot{NotReady: []string{"waiting for a subnet"}})
	code, out, _ := call(t, "status", "-status-addr="+addr)
	if code != exitNegative || !strings.Contains(out, "not ready: waiting for a subnet") {
		t.Errorf("code %d\n%s", code, out)
	}
	if code, out, _ := call(t, "status", "-json", "-status-addr="+addr); code != exitNegative || !strings.Contains(out, `"ready": false`) {
		t.Errorf("code %d\n%s", code, out)
	}
	if code, out, _ := call(t, "peers", "-json", "-status-addr="+addr); code != exitOK || strings.TrimSpace(out) != "[]" {
		t.Errorf("code %d\n%s", code, out)
	}
	code, _, errs := call(t, "wait", "-timeout=50ms", "-status-addr="+addr)
	if code != exitNegative || !strings.Contains(errs, "waiting for a subnet") {
		t.Errorf("code %d\n%s", code, errs)
	}
	if code, out, errs := call(t, "wait", "-json", "-timeout=50ms", "-status-addr="+addr); code != exitNegative || errs != "" || !strings.Contains(out, `"missing": "waiting for a subnet"`) {
		t.Errorf("code %d\n%s%s", code, out, errs)
	}
}

// Wrong input is an error of one line that names the remedy.
func TestWrongInput(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"statsu", "did you mean status?"},
		{"x", "(see flannel help)"},
		{"help pign", "(see flannel help)"},
		{"status -x", "(see flannel help status)"},
		{"status now", `unexpected argument "now" (see flannel help status)`},
		{"status -status-addr=here", `-status-addr "here" is not HOST:PORT`},
		{"status -status-addr=", "-status-addr is empty"},
		{"wait -timeout=soon", "(see flannel help wait)"},
		{"wait -timeout=-1s", "negative"},
		{"reserve", "usage: flannel reserve SUBNET [IP] (see flannel help reserve)"},
		{"release 10.5.1.0/33", "is not a subnet such as"},
		{"ping", "usage: flannel ping HOST|SUBNET"},
		{"config sett 10.5.0.0/16", "usage: flannel config get | set CONFIG | check [CONFIG]"},
		{"leases -etcd-api=9", `-etcd-api "9" is none of`},
	} {
		code, out, errs := call(t, strings.Fields(test.line)...)
		if code != exitFailed || out != "" || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "flannel") || !strings.Contains(errs, test.want) {
			t.Errorf("flannel %s: code %d, want %q in\n%s%s", test.line, code, test.want, out, errs)
		}
	}
	code, out, errs := call(t, "version", "-json")
	if code != exitOK || errs != "" || !strings.Contains(out, `"version": "1"`) {
		t.Errorf("code %d\n%s%s", code, out, errs)
	}
}

// Both outputs show the results of probes.
func TestPeersAsProbed(t *testing.T) {
	peer := func(subnet string, m *status.Probe) status.Peer {
		return status.Peer{Subnet: netip.MustParsePrefix(subnet), PublicIP: netip.MustParseAddr("192.0.2.2"), Probe: m}
	}
	since := time.Now().Add(-time.Hour)
	addr := daemonOf(t, status.Snapshot{Backend: &status.Backend{Type: "udp", Peers: []status.Peer{
		peer("10.5.2.0/24", &status.Probe{RTTSeconds: 0.00025, MTU: 1472, Since: since}),
		peer("10.5.3.0/24", &status.Probe{RTTSeconds: 0.0123, Loss: 1, Silent: true, Since: since}),
		peer("10.5.4.0/24", &status.Probe{RTTSeconds: 0.0123, Loss: 0.1, MTU: 1400, Since: since}),
		peer("10.5.5.0/24", &status.Probe{RTTSeconds: 0.25, Since: since}),
		peer("10.5.6.0/24", nil),
		{Subnet: netip.MustParsePrefix("10.5.7.0/24"), PublicIP: netip.MustParseAddr("192.0.2.7"), TxPackets: 200, TxFast: 150},
	}}})
	_, out, _ := call(t, "peers", "-status-addr="+addr)
	for _, want := range []string{
		"SUBNET        HOST        RTT      LOSS   MTU    SENT   RECEIVED   FAST   STATE",
		"10.5.2.0/24   192.0.2.2   250µs    0%     1472   0 B    0 B        -      answers",
		"10.5.3.0/24   192.0.2.2   12.3ms   100%   -      0 B    0 B        -      silent for 1h0m0s",
		"10.5.4.0/24   192.0.2.2   12.3ms   10%    1400   0 B    0 B        -      loses packets",
		"10.5.5.0/24   192.0.2.2   250ms    0%     -      0 B    0 B        -      slow",
		"10.5.6.0/24   192.0.2.2   -        -      -      0 B    0 B        -      unknown",
		"10.5.7.0/24   192.0.2.7   -        -      -      0 B    0 B        75%    unknown",
	} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if _, out, _ := call(t, "status", "-status-addr="+addr); !strings.Contains(out, "6, 3 answering, 1 silent (10.5.3.0/24 silent for 1h0m0s)") {
		t.Errorf("status\n%s", out)
	}
}
