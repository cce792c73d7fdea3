// Package chart draws a result of the benchmark: the ratios of all subjects to the
// reference. The chart has no background and colors of medium brightness, so that
// it is legible on a light and on a dark page.
package chart

import (
	"bytes"
	"fmt"
	"image/color"
	"slices"

	"github.com/google/renameio/v2"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/coreos/flannel/e2e/bench/result"
)

const (
	panelWidth  = 13 * vg.Centimeter
	panelHeight = 8 * vg.Centimeter
	pad         = 4 * vg.Millimeter
)

// ink has a contrast of more than 4 to white and to GitHub's dark background.
var ink = color.NRGBA{R: 0x7a, G: 0x7a, B: 0x7a, A: 0xff}

// WriteFile draws r into a file, as SVG. Each link has a row: on the left the
// figures of which more is better, on the right the others. If there are several
// numbers of routes, a last row shows their effect.
func WriteFile(path string, r *result.Result) error {
	rows, err := panels(r)
	if err != nil {
		return fmt.Errorf("draw chart: %w", err)
	}
	if len(rows) == 0 {
		return fmt.Errorf("draw chart: nothing to compare with %s", r.Reference)
	}
	canvas := vgsvg.New(2*panelWidth, vg.Length(len(rows))*panelHeight)
	tiles := draw.Tiles{Rows: len(rows), Cols: 2, PadX: pad, PadY: pad,
		PadTop: pad, PadBottom: pad, PadLeft: pad, PadRight: pad}
	cells := plot.Align(rows, tiles, draw.New(canvas))
	for i, row := range rows {
		for j, p := range row {
			if p != nil {
				p.Draw(cells[i][j])
			}
		}
	}
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return fmt.Errorf("draw chart: %w", err)
	}
	// Arial has the same metrics, for machines without the font.
	drawn := bytes.ReplaceAll(svg.Bytes(), []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,sans-serif"))
	if err := renameio.WriteFile(path, drawn, 0o644); err != nil {
		return fmt.Errorf("draw chart: %w", err)
	}
	return nil
}

func panels(r *result.Result) ([][]*plot.Plot, error) {
	var rows [][]*plot.Plot
	first := make(map[string]bool)
	several := false
	for _, s := range r.Scenarios {
		if first[s.Link] {
			several = true
			continue
		}
		first[s.Link] = true
		row, err := panelRow(func(sense result.Sense, legend bool) (*plot.Plot, error) { return ratios(r, s, sense, legend) })
		if err != nil {
			return nil, err
		}
		if row != nil {
			rows = append(rows, row)
		}
	}
	if several {
		row, err := panelRow(func(sense result.Sense, legend bool) (*plot.Plot, error) { return overRoutes(r, sense, legend) })
		if err != nil {
			return nil, err
		}
		if row != nil {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// panelRow returns the two panels of a row, the first of them with a legend; nil if
// both are empty.
func panelRow(f func(sense result.Sense, legend bool) (*plot.Plot, error)) ([]*plot.Plot, error) {
	row := make([]*plot.Plot, 2)
	for i, sense := range []result.Sense{result.More, result.Less} {
		p, err := f(sense, row[0] == nil)
		if err != nil {
			return nil, err
		}
		row[i] = p
	}
	if row[0] == nil && row[1] == nil {
		return nil, nil
	}
	return row, nil
}

// newPlot returns an empty panel in the chart's style.
func newPlot(title, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil // transparent
	p.Title.Text, p.Y.Label.Text = title, y
	p.Title.Padding = 2 * vg.Millimeter
	for _, s := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle,
		&p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		*s = style(*s, 9)
	}
	p.Title.TextStyle.Font.Size = 11
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.LineStyle.Color, a.Tick.LineStyle.Color = ink, ink
	}
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.ThumbnailWidth = 3 * vg.Millimeter
	return p
}

func style(s text.Style, size font.Length) text.Style {
	s.Color = ink
	s.Font.Variant = "Sans"
	s.Font.Size = size
	return s
}

// subjectColor returns the color of a subject, of medium brightness. All but the
// second and the last two are of Okabe and Ito's palette for the color-blind.
func subjectColor(r *result.Result, s result.Subject) color.Color {
	colors := []color.NRGBA{
		{0x99, 0x99, 0x99, 0xff}, {0xa6, 0x76, 0x1d, 0xff}, {0x00, 0x72, 0xb2, 0xff}, {0xd5, 0x5e, 0x00, 0xff},
		{0x00, 0x9e, 0x73, 0xff}, {0xe6, 0x9f, 0x00, 0xff}, {0xcc, 0x79, 0xa7, 0xff}, {0x56, 0xb4, 0xe9, 0xff},
		{0x75, 0x70, 0xb3, 0xff}, {0x66, 0xa6, 0x1e, 0xff},
	}
	return colors[slices.Index(r.Subjects, s)%len(colors)]
}
