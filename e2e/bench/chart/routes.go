package chart

import (
	"fmt"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/coreos/flannel/e2e/bench/result"
)

// overRoutes draws the first figure of one sense over the number of routes: a line
// for each subject, relative to its own value at the first number. It returns nil if
// there is nothing to draw.
func overRoutes(r *result.Result, sense result.Sense, legend bool) (*plot.Plot, error) {
	first := r.Scenarios[0]
	figures := figuresOf(r, first, sense)
	if len(figures) == 0 {
		return nil, nil
	}
	f := figures[0]
	p := newPlot(fmt.Sprintf("%s over the number of routes: %s is better", f.Name, sense), "× its own at "+strconv.Itoa(first.Routes))
	var numbers []string
	drawn := false
	for _, s := range r.Subjects {
		own := r.Cell(first, s.Name, f.Name)
		if own == nil || own.Median == 0 {
			continue
		}
		numbers = numbers[:0]
		var points plotter.XYs
		for _, at := range r.Scenarios {
			if at.Link != first.Link || at.Ends != first.Ends || at.Rules != first.Rules || at.Inside != first.Inside {
				continue
			}
			if c := r.Cell(at, s.Name, f.Name); c != nil {
				points = append(points, plotter.XY{X: float64(len(numbers)), Y: c.Median / own.Median})
			}
			numbers = append(numbers, strconv.Itoa(at.Routes))
		}
		if len(points) < 2 {
			continue // only the first number was measured
		}
		drawn = true
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width, dots.Color = subjectColor(r, s), vg.Points(1.5), subjectColor(r, s)
		p.Add(line, dots)
		if legend {
			p.Legend.Add(s.Name, line)
		}
	}
	if !drawn {
		return nil, nil
	}
	p.NominalX(numbers...)
	p.X.Label.Text = "routes"
	p.Y.Min, p.Y.Max = 0, max(2, p.Y.Max)
	return p, nil
}
