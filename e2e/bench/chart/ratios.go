package chart

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/coreos/flannel/e2e/bench/result"
)

// groupWidth is the most width for the bars of one figure, panelBars for those of a
// panel, which leaves room for the axis and between the figures.
const (
	groupWidth = 1.4 * vg.Centimeter
	panelBars  = 9 * vg.Centimeter
)

// ratios draws a group of bars for each figure of one sense, on a logarithmic axis:
// up from 1 for more than the reference, down for less. It returns nil if there is
// nothing to draw.
func ratios(r *result.Result, at result.Scenario, sense result.Sense, legend bool) (*plot.Plot, error) {
	figures := figuresOf(r, at, sense)
	subjects := comparedSubjects(r, at, figures)
	if len(figures) == 0 || len(subjects) == 0 {
		return nil, nil
	}
	p := newPlot(fmt.Sprintf("%s ends, link %s: %s is better", at.Ends, at.Link, sense), "× "+r.Reference)
	names := make([]string, len(figures))
	for i, f := range figures {
		names[i] = strings.TrimSuffix(f.Name, "-p50")
	}
	width := min(groupWidth, panelBars/vg.Length(len(figures))) / vg.Length(len(subjects))
	lowest, highest := 0.0, 0.0
	for i, s := range subjects {
		values := make(plotter.Values, len(figures))
		for j, f := range figures {
			values[j] = log2Ratio(r, at, s.Name, f.Name)
			lowest, highest = min(lowest, values[j]), max(highest, values[j])
		}
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return nil, err
		}
		bars.Color = subjectColor(r, s)
		bars.LineStyle.Width = 0
		bars.Offset = width * (vg.Length(i) - vg.Length(len(subjects)-1)/2)
		p.Add(bars)
		if legend {
			p.Legend.Add(s.Name, bars)
		}
	}
	p.NominalX(names...)
	p.X.Tick.Label.Rotation = math.Pi / 6
	p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = -1, -0.5
	p.X.Min, p.X.Max = -0.5, float64(len(figures))-0.5
	p.Y.Min, p.Y.Max = math.Floor(lowest), math.Ceil(highest)
	if legend { // above the highest bar, a line for each subject
		p.Y.Max += (p.Y.Max - p.Y.Min + 1) * 0.09 * float64(len(subjects))
	}
	p.Y.Tick.Marker = log2Ticks{}
	one := plotter.NewFunction(func(float64) float64 { return 0 })
	one.Color, one.Width = ink, vg.Points(1)
	p.Add(one)
	return p, nil
}

// figuresOf returns the figures of one sense that the reference has as well.
func figuresOf(r *result.Result, at result.Scenario, sense result.Sense) []result.Figure {
	var figures []result.Figure
	for _, f := range r.Figures {
		if f.Better == sense && !f.Detail && r.Cell(at, r.Reference, f.Name) != nil {
			figures = append(figures, f)
		}
	}
	return figures
}

// comparedSubjects returns the subjects, except the reference, that have one of the
// figures.
func comparedSubjects(r *result.Result, at result.Scenario, figures []result.Figure) []result.Subject {
	var subjects []result.Subject
	for _, s := range r.Subjects {
		has := func(f result.Figure) bool { return r.Cell(at, s.Name, f.Name) != nil }
		if s.Name != r.Reference && slices.ContainsFunc(figures, has) {
			subjects = append(subjects, s)
		}
	}
	return subjects
}

// log2Ratio returns the binary logarithm of the ratio to the reference; 0 if there
// is none.
func log2Ratio(r *result.Result, at result.Scenario, subject, figure string) float64 {
	if c := r.Cell(at, subject, figure); c != nil {
		if q, ok := r.Ratio(c); ok && q > 0 {
			return math.Log2(q)
		}
	}
	return 0
}

// log2Ticks labels an axis of binary logarithms: ¼, ½, 1, 2, 4.
type log2Ticks struct{}

// Ticks implements plot.Ticker.
func (log2Ticks) Ticks(lowest, highest float64) []plot.Tick {
	var ticks []plot.Tick
	for v := math.Ceil(lowest); v <= highest; v++ {
		label := fmt.Sprintf("%.0f", math.Exp2(v))
		if v < 0 {
			label = fmt.Sprintf("1/%.0f", math.Exp2(-v))
		}
		ticks = append(ticks, plot.Tick{Value: v, Label: label})
	}
	return ticks
}
