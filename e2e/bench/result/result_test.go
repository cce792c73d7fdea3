package result

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coreos/flannel/e2e/bench/machine"
)

var (
	one    = Scenario{"on", 1, "container", "masq", InsideIPv4}
	many   = Scenario{"on", 1000, "container", "masq", InsideIPv4}
	strict = Scenario{"on", 1, "container", "rules", InsideIPv4}
	six    = Scenario{"on", 1, "container", "masq", InsideIPv6}
)

// sample has two rounds of two subjects, of which ours has one more scenario. The last
// scenario has IPv6 inside.
func sample() *Result {
	r := &Result{
		Machine: machine.Description{CPU: "CPU", Cores: 2, Kernel: "6.18", Go: "go1.26", Iperf3: "iperf 3.12",
			Date: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)},
		Rounds: 2, Seconds: 3, Congestion: "cubic", Reference: "vxlan",
		Subjects:  []Subject{{Name: "vxlan", About: "by hand"}, {Name: "ours", About: "flannel", ByHand: "vxlan"}},
		LeftOut:   map[string]string{"theirs": "not known"},
		Scenarios: []Scenario{one, many, strict, six},
		Figures:   []Figure{{"tcp", "TCP", "Gb/s", More, false}, {"loss", "UDP, loss", "%", Share, false}, {"cost", "UDP, cost", "µs", Less, true}, {"retrans", "TCP, retransmits", "segments/s", Count, false}},
		Foreign:   []float64{0.01, 0.04, 0.02},
		Repeated:  1,
	}
	for _, v := range []float64{10, 12} {
		r.Add(one, "vxlan", "tcp", v)
		r.Add(one, "ours", "tcp", v/2)
		r.Add(one, "vxlan", "loss", v)
		r.Add(one, "ours", "loss", 1)
		r.Add(many, "ours", "tcp", 4321)
		r.Add(one, "ours", "cost", v)
		r.Add(many, "ours", "cost", v*1.1)
		r.Add(one, "vxlan", "retrans", 0)
		r.Add(one, "ours", "retrans", v)
		r.Add(strict, "vxlan", "cost", v)
		r.Add(strict, "ours", "cost", v*5)
		r.Add(strict, "vxlan", "tcp", v)
		r.Add(strict, "ours", "tcp", v*2)
		r.Add(six, "vxlan", "tcp", v)
		r.Add(six, "ours", "tcp", v*0.49)
		r.Add(six, "ours", "loss", 1)
	}
	r.Evaluate([]Target{
		{"tcp", "ours", one, "vxlan", one, 0.5},
		{"tcp", "ours", one, "vxlan", one, 0.51},
		{"cost", "ours", many, "ours", one, 1.05},
		{"cost", "ours", many, "ours", one, 1.2},
		{"tcp", "theirs", one, "vxlan", one, 1},  // left out
		{"cost", "ours", one, "vxlan", one, 1},   // not measured
		{"loss", "ours", one, "vxlan", many, 10}, // nor this
		{"retrans", "ours", one, "", Scenario{}, 10.5},
		{"retrans", "vxlan", one, "", Scenario{}, 10.5},
		{"tcp", "ours", six, "ours", one, 0.97},
	})
	return r
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{7}, 7}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 100, 2}, 3}} {
		before := append([]float64(nil), c.values...)
		if got := Median(c.values); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.values, got, c.want)
		}
		if !cmp.Equal(before, c.values) {
			t.Errorf("the values are %v, were %v", c.values, before)
		}
	}
}

func TestCell(t *testing.T) {
	r := sample()
	want := &Cell{Scenario: one, Subject: "vxlan", Figure: "tcp", Samples: []float64{10, 12}, Median: 11, Min: 10, Max: 12}
	if diff := cmp.Diff(want, r.Cell(one, "vxlan", "tcp")); diff != "" {
		t.Error(diff)
	}
	if c := r.Cell(many, "vxlan", "tcp"); c != nil {
		t.Errorf("got %v, want none", c)
	}
}

func TestRatio(t *testing.T) {
	r := sample()
	for _, c := range []struct {
		at              Scenario
		subject, figure string
		want            float64
		ok              bool
	}{
		{one, "ours", "tcp", 0.5, true},
		{one, "vxlan", "tcp", 1, true},
		{one, "ours", "loss", 0, false}, // a ratio of shares is meaningless
		{one, "ours", "retrans", 0, false},
		{many, "ours", "tcp", 0, false}, // that of another scenario is no reference
	} {
		if got, ok := r.Ratio(r.Cell(c.at, c.subject, c.figure)); got != c.want || ok != c.ok {
			t.Errorf("%v: %v, %v", c, got, ok)
		}
	}
	if got, ok := r.RatioByHand(r.Cell(one, "ours", "tcp")); got != 0.5 || !ok {
		t.Errorf("ratio to what is set up by hand: %v, %v", got, ok)
	}
	if got, ok := r.RatioByHand(r.Cell(one, "vxlan", "tcp")); ok {
		t.Errorf("ratio %v of a subject without one by hand", got)
	}
	if got, ok := r.RatioInside(r.Cell(six, "ours", "tcp")); math.Abs(got-0.98) > 1e-9 || !ok {
		t.Errorf("ratio to IPv4 inside: %v, %v", got, ok)
	}
	if got, ok := r.RatioInside(r.Cell(six, "ours", "loss")); ok {
		t.Errorf("ratio %v of shares", got)
	}
}

func TestTargets(t *testing.T) {
	r := sample()
	var got []bool
	for _, o := range r.Outcomes {
		got = append(got, o.Met)
	}
	// The furthest from being met stands first.
	if diff := cmp.Diff([]bool{false, false, false, true, true, true, true}, got); diff != "" {
		t.Error(diff)
	}
	r.Add(one, "ours", "tcp", 30)
	r.Add(one, "vxlan", "tcp", 10)
	r.Evaluate([]Target{{"tcp", "ours", one, "vxlan", one, 1}})
	want := []Outcome{{Target{"tcp", "ours", one, "vxlan", one, 1}, 0.6, 0.5, 3, false}}
	if diff := cmp.Diff(want, r.Outcomes); diff != "" {
		t.Error(diff)
	}
}

func TestCompleteDropsTheInterruptedRound(t *testing.T) {
	r := sample()
	r.Add(one, "vxlan", "tcp", 100)
	r.Add(many, "vxlan", "tcp", 100)
	r.Complete(2)
	if c := r.Cell(one, "vxlan", "tcp"); len(c.Samples) != 2 || c.Median != 11 || c.Max != 12 {
		t.Errorf("got %v, want the first two rounds", c)
	}
	if c := r.Cell(many, "vxlan", "tcp"); c != nil {
		t.Errorf("got %v, of no complete round", c)
	}
	if r.Complete(0); len(r.Cells) != 0 {
		t.Errorf("%d cells of no round", len(r.Cells))
	}
}

func TestPrint(t *testing.T) {
	var out bytes.Buffer
	if err := sample().Print(&out, map[string]string{"on": "offloads on", "container": "in containers", "masq": "own rules", "rules": "many rules"}); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/table.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestShort(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.01234: "0.0123", 0.9996: "1.00", 1: "1.00", 9.995: "9.99", 9.996: "10.0", 12.34: "12.3", 99.96: "100", 123.4: "123", 43210: "43210"} {
		if got := formatNumber(v); got != want {
			t.Errorf("%v is spelt %s, want %s", v, got, want)
		}
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "result.json")
	r := sample()
	if err := r.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*r, back); diff != "" {
		t.Error(diff)
	}
}

// A file from before there were ends, rules and families is one of hosts without rules,
// with IPv4 inside.
func TestReadCompletesScenarios(t *testing.T) {
	r := sample()
	for _, s := range []*Scenario{&r.Scenarios[0], &r.Cells[0].Scenario, &r.Outcomes[0].At, &r.Outcomes[0].OverAt} {
		s.Ends, s.Rules, s.Inside = "", "", ""
	}
	path := filepath.Join(t.TempDir(), "result.json")
	if err := r.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	back, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Scenario{back.Scenarios[0], back.Cells[0].Scenario, back.Outcomes[0].At, back.Outcomes[0].OverAt} {
		if s.Ends != "host" || s.Rules != "none" || s.Inside != InsideIPv4 {
			t.Errorf("scenario %v", s)
		}
	}
	if diff := cmp.Diff(r.Scenarios[1:], back.Scenarios[1:]); diff != "" {
		t.Error(diff)
	}
}
