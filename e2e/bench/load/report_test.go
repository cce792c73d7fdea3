package load

import (
	"math"
	"os"
	"strings"
	"testing"
)

func TestPingPongReport(t *testing.T) {
	out, err := os.ReadFile("testdata/pingpong.txt")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parsePingPong(out)
	if want := (RoundTrip{P50: 4.302, P99: 38.951}); err != nil || got != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	cut := strings.Split(string(out), "percentile 50.000")[0]
	if got, err := parsePingPong([]byte(cut)); err == nil {
		t.Errorf("got %v of a report without a median", got)
	}
}

func TestThroughputReport(t *testing.T) {
	sent, seconds, err := parseThroughput([]byte("sockperf: Test ended\nsockperf: Total of 633108 messages sent in 2.001 sec\n"))
	if err != nil || sent != 633108 || seconds != 2.001 {
		t.Errorf("got %v in %v, %v", sent, seconds, err)
	}
	for _, bad := range []string{"", "sockperf: Total of 0 messages sent in 1.000 sec", "Total of 5 messages sent in 0.000 sec"} {
		if _, _, err := parseThroughput([]byte(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestIperf3Report(t *testing.T) {
	const report = `{"start": {}, "end": {
		"sum_sent": {"bytes": 3761504256, "bits_per_second": 15033787038.2},
		"sum_received": {"bytes": 3760193536, "bits_per_second": 14992520716}}}`
	bits, bps, err := parseIperf3([]byte(report))
	if err != nil || bits != 8*3760193536 || bps != 14992520716 {
		t.Errorf("got %v, %v, %v; want what was received", bits, bps, err)
	}
	for _, bad := range []string{"", "{}", `{"error": "unable to connect to server", "end": {}}`, `{"end": {"sum_received": {"bytes": 0, "bits_per_second": 0}}}`} {
		if _, _, err := parseIperf3([]byte(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestDelivery(t *testing.T) {
	got := delivery(750, 1000, 0.5, 0.003)
	want := Delivery{Rate: 1.5, Loss: 25, CPU: 4}
	if math.Abs(got.Rate-want.Rate) > 1e-9 || math.Abs(got.Loss-want.Loss) > 1e-9 || math.Abs(got.CPU-want.CPU) > 1e-9 {
		t.Errorf("got %v, want %v", got, want)
	}
	// More received packets than sent ones are no negative loss.
	if got := delivery(1001, 1000, 1, 1); got.Loss != 0 {
		t.Errorf("loss %v %%, want 0", got.Loss)
	}
}
