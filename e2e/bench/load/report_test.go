package load

import (
	"io"
	"math"
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	got, err := parseReport([]byte(`{"Count": 633108, "Seconds": 2.001, "Busy": 3.5, "P50": 4.302, "P99": 38.951, "P999": 90}`))
	if want := (report{633108, 2.001, 3.5, 4.302, 38.951, 90}); err != nil || *got != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"", `{"Count": 0, "Seconds": 1}`, `{"Count": 5, "Seconds": 0}`, "connect: no route"} {
		if _, err := parseReport([]byte(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestPercentile(t *testing.T) {
	var times []time.Duration
	for i := range 1000 {
		times = append(times, time.Duration(i+1)*time.Microsecond)
	}
	for share, want := range map[float64]float64{0.5: 500, 0.99: 990, 0.999: 999, 1: 1000, 0: 1} {
		if got := percentile(times, share); got != want {
			t.Errorf("percentile of %v is %v µs, want %v", share, got, want)
		}
	}
	if got := percentile(times[:1], 0.999); got != 1 {
		t.Errorf("percentile of one time is %v µs, want 1", got)
	}
}

// Arguments that the benchmark does not write are errors, and no load.
func TestArguments(t *testing.T) {
	for _, bad := range [][]string{nil, {"server"}, {"server", "udp-rr", "nowhere"}, {"client", "udp-rr"},
		{"client", "udp-rr", "x", "127.0.0.1:1", "64", "1"}, {"client", "udp-rr", "127.0.0.1", "x", "64", "1"},
		{"client", "udp-rr", "127.0.0.1", "127.0.0.1:1", "7", "1"}, {"client", "udp-rr", "127.0.0.1", "127.0.0.1:1", "64", "x"},
		{"client", "sctp-rr", "127.0.0.1", "127.0.0.1:1", "64", "1"},
	} {
		if err := runProgram(bad, io.Discard); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestIperf3Report(t *testing.T) {
	const report = `{"start": {}, "end": {
		"sum_sent": {"bytes": 3761504256, "bits_per_second": 15033787038.2, "retransmits": 17},
		"sum_received": {"bytes": 3760193536, "bits_per_second": 14992520716}}}`
	got, err := parseIperf3([]byte(report))
	if want := (transferred{8 * 3760193536, 14992520716, 17}); err != nil || got != want {
		t.Errorf("got %v, %v; want what was received, %v", got, err, want)
	}
	for _, bad := range []string{"", "{}", `{"error": "unable to connect to server", "end": {}}`, `{"end": {"sum_received": {"bytes": 0, "bits_per_second": 0}}}`} {
		if _, err := parseIperf3([]byte(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestDelivery(t *testing.T) {
	got := delivery(750, &report{Count: 1000, Seconds: 0.5, Busy: 0.003})
	want := Delivery{Rate: 1.5, Loss: 25, CPU: 4}
	if math.Abs(got.Rate-want.Rate) > 1e-9 || math.Abs(got.Loss-want.Loss) > 1e-9 || math.Abs(got.CPU-want.CPU) > 1e-9 {
		t.Errorf("got %v, want %v", got, want)
	}
	// More received packets than sent ones are no negative loss.
	if got := delivery(1001, &report{Count: 1000, Seconds: 1, Busy: 1}); got.Loss != 0 {
		t.Errorf("loss %v %%, want 0", got.Loss)
	}
}
