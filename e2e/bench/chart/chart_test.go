package chart

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/e2e/bench/result"
)

var at = result.Scenario{Link: "on", Routes: 1, Ends: "container", Rules: "masq", Inside: result.InsideIPv4}

func sample() *result.Result {
	far, off, nested, six := at, at, at, at
	far.Routes, off.Link, nested.Ends, six.Inside = 1000, "off", "nested", result.InsideIPv6
	r := &result.Result{
		Reference: "vxlan",
		Subjects:  []result.Subject{{Name: "vxlan"}, {Name: "fast"}, {Name: "slow"}},
		Scenarios: []result.Scenario{at, far, off, nested, six},
		Figures: []result.Figure{
			{Name: "tcp1", Better: result.More}, {Name: "rr-p50", Better: result.Less}, {Name: "loss", Better: result.Share},
			{Name: "retrans", Better: result.Count}, {Name: "rr-p999", Better: result.Less, Detail: true},
		},
	}
	for _, s := range r.Scenarios {
		for i, subject := range r.Subjects {
			for _, f := range r.Figures {
				r.Add(s, subject.Name, f.Name, []float64{8, 16, 0.5}[i])
			}
		}
	}
	return r
}

func drawn(t *testing.T, r *result.Result) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chart.svg")
	if err := WriteFile(path, r); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestChart(t *testing.T) {
	svg := drawn(t, sample())
	d := xml.NewDecoder(strings.NewReader(svg))
	var texts strings.Builder
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := token.(xml.CharData); ok {
			texts.WriteString(strings.TrimSpace(string(text)) + "\n")
		}
	}
	for _, want := range []string{"container ends, link on: more is better", "container ends, link on: less is better", "container ends, link off: more is better",
		"tcp1 over the number of routes: more is better", "fast", "slow", "vxlan", "tcp1", "1000", "1/16", "2"} {
		if !strings.Contains(texts.String(), "\n"+want+"\n") {
			t.Errorf("the chart does not say %q", want)
		}
	}
	for _, bad := range []string{"loss", "retrans", "p999", "nested"} {
		if strings.Contains(texts.String(), bad) {
			t.Errorf("the chart shows %s", bad)
		}
	}
	// Black and white vanish on one of the two kinds of page.
	for _, bad := range []string{"fill:#000000", "fill:#FFFFFF", "stroke:#000000", "fill:#-"} {
		if strings.Contains(svg, bad) {
			t.Errorf("the chart has %s", bad)
		}
	}
}

func TestChartOfLittle(t *testing.T) {
	r := sample()
	r.Scenarios, r.Figures = r.Scenarios[:1], r.Figures[1:2]
	if svg := drawn(t, r); !strings.Contains(svg, "less is better") || strings.Contains(svg, "more is better") || !strings.Contains(svg, ">fast<") {
		t.Error("a chart of one figure lacks it or its legend, or has others")
	}
	r.Reference = "none"
	if err := WriteFile(filepath.Join(t.TempDir(), "chart.svg"), r); err == nil {
		t.Error("a chart without a reference")
	}
}

// A subject that is measured on one link alone is in that link's legend alone.
func TestChartOfAPart(t *testing.T) {
	r := sample()
	before := strings.Count(drawn(t, r), ">slow<")
	r.Cells = slices.DeleteFunc(r.Cells, func(c *result.Cell) bool { return c.Subject == "slow" && c.Scenario != at })
	if got := strings.Count(drawn(t, r), ">slow<"); before != 3 || got != 1 {
		t.Errorf("slow is in %d of %d legends, want 1 of 3", got, before)
	}
	r.Cells = slices.DeleteFunc(r.Cells, func(c *result.Cell) bool { return c.Routes != at.Routes })
	if svg := drawn(t, r); strings.Contains(svg, "over the number of routes") {
		t.Error("a panel without lines")
	}
}

func TestBars(t *testing.T) {
	r := sample()
	for subject, want := range map[string]float64{"fast": 1, "slow": -4, "none": 0} {
		if got := log2Ratio(r, at, subject, "tcp1"); math.Abs(got-want) > 1e-9 {
			t.Errorf("bar of %s is %v high, want %v", subject, got, want)
		}
	}
	ticks := log2Ticks{}.Ticks(-1.5, 2)
	var labels []string
	for _, tick := range ticks {
		labels = append(labels, tick.Label)
	}
	if got := strings.Join(labels, " "); got != "1/2 1 2 4" {
		t.Errorf("ticks are %s", got)
	}
}

func TestHuesDiffer(t *testing.T) {
	r := sample()
	if subjectColor(r, r.Subjects[0]) == subjectColor(r, r.Subjects[1]) || subjectColor(r, r.Subjects[1]) == subjectColor(r, r.Subjects[2]) {
		t.Error("two subjects look alike")
	}
}
