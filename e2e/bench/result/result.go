package result

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/google/renameio/v2"

	"github.com/coreos/flannel/e2e/bench/machine"
)

// Result is the result of a run. It is not safe for concurrent use.
type Result struct {
	Machine machine.Description `json:"machine"`
	// Rounds is the number of samples of each cell. Seconds is the length of each
	// measurement.
	Rounds  int `json:"rounds"`
	Seconds int `json:"seconds"`
	// Congestion is TCP's congestion control.
	Congestion string `json:"congestion"`
	// Reference is a subject's name.
	Reference string    `json:"reference"`
	Subjects  []Subject `json:"subjects"`
	// LeftOut maps subjects that the machine does not support to the reason.
	LeftOut   map[string]string `json:"left_out,omitempty"`
	Scenarios []Scenario        `json:"scenarios"`
	Figures   []Figure          `json:"figures"`
	Cells     []*Cell           `json:"cells"`
	Outcomes  []Outcome         `json:"targets,omitempty"`
	// Foreign lists the shares of the machine, 0 to 1, that other programs used just
	// before each trial.
	Foreign []float64 `json:"foreign_load"`
	// Repeated is how many measurements failed and were repeated.
	Repeated int `json:"repeated,omitempty"`
}

// Cell is one figure of one subject in one scenario.
type Cell struct {
	Scenario
	Subject string    `json:"subject"`
	Figure  string    `json:"figure"`
	Samples []float64 `json:"samples"`
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
}

// Add appends the value of a round.
func (r *Result) Add(s Scenario, subject, figure string, value float64) {
	c := r.Cell(s, subject, figure)
	if c == nil {
		c = &Cell{Scenario: s, Subject: subject, Figure: figure}
		r.Cells = append(r.Cells, c)
	}
	c.Samples = append(c.Samples, value)
	c.Median, c.Min, c.Max = Median(c.Samples), slices.Min(c.Samples), slices.Max(c.Samples)
}

// Cell returns a cell; nil if there is none.
func (r *Result) Cell(s Scenario, subject, figure string) *Cell {
	i := slices.IndexFunc(r.Cells, func(c *Cell) bool {
		return c.Scenario == s && c.Subject == subject && c.Figure == figure
	})
	if i < 0 {
		return nil
	}
	return r.Cells[i]
}

// Spread is the lowest and the highest of the rounds' values.
type Spread struct{ Min, Max float64 }

// roundRatios returns the extremes of the rounds' ratios of two cells.
func roundRatios(c, other *Cell) Spread {
	ratios := make([]float64, len(c.Samples))
	for i := range ratios {
		ratios[i] = c.Samples[i] / other.Samples[i]
	}
	return Spread{slices.Min(ratios), slices.Max(ratios)}
}

// Ratio returns the cell's median over that of the reference in the same scenario;
// ok is false if there is none.
func (r *Result) Ratio(c *Cell) (ratio float64, ok bool) { return r.ratio(c, r.reference(c)) }

// RatioByHand returns the cell's median over that of the same transport set up by
// hand.
func (r *Result) RatioByHand(c *Cell) (ratio float64, ok bool) {
	i := slices.IndexFunc(r.Subjects, func(s Subject) bool { return s.Name == c.Subject })
	if i < 0 {
		return 0, false
	}
	return r.ratio(c, r.Cell(c.Scenario, r.Subjects[i].ByHand, c.Figure))
}

// RatioInside returns the median of a cell with IPv6 inside over that of the same
// subject with IPv4 inside.
func (r *Result) RatioInside(c *Cell) (ratio float64, ok bool) { return r.ratio(c, r.insideIPv4(c)) }

// reference returns the reference's cell in the same scenario; nil if there is none.
func (r *Result) reference(c *Cell) *Cell { return r.Cell(c.Scenario, r.Reference, c.Figure) }

// insideIPv4 returns the same subject's cell with IPv4 inside; nil if there is none.
func (r *Result) insideIPv4(c *Cell) *Cell {
	at := c.Scenario
	at.Inside = InsideIPv4
	return r.Cell(at, c.Subject, c.Figure)
}

// ratio returns the cell's median over that of another cell, which may be nil.
func (r *Result) ratio(c, other *Cell) (ratio float64, ok bool) {
	if other == nil || other.Median == 0 || !r.sense(c.Figure).hasRatio() {
		return 0, false
	}
	return c.Median / other.Median, true
}

func (r *Result) sense(figure string) Sense {
	for _, f := range r.Figures {
		if f.Name == figure {
			return f.Better
		}
	}
	return ""
}

// Complete drops the samples of an interrupted round, and the cells with fewer than
// rounds samples.
func (r *Result) Complete(rounds int) {
	r.Rounds = rounds
	r.Cells = slices.DeleteFunc(r.Cells, func(c *Cell) bool { return len(c.Samples) < rounds || rounds == 0 })
	for _, c := range r.Cells {
		c.Samples = c.Samples[:rounds]
		c.Median, c.Min, c.Max = Median(c.Samples), slices.Min(c.Samples), slices.Max(c.Samples)
	}
}

// WriteFile writes r as JSON; a reader sees the old file or the new one.
func (r *Result) WriteFile(path string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	if err := renameio.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// Read reads a file of WriteFile.
func Read(path string) (*Result, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read result: %w", err)
	}
	r := new(Result)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read result %s: %w; it must be a file of -json", path, err)
	}
	if r.Rounds == 0 || len(r.Cells) == 0 {
		return nil, fmt.Errorf("read result %s: it has no figure; it must be a file of -json", path)
	}
	for i := range r.Scenarios {
		r.Scenarios[i].complete()
	}
	for _, c := range r.Cells {
		c.complete()
	}
	for i := range r.Outcomes {
		r.Outcomes[i].At.complete()
		r.Outcomes[i].OverAt.complete()
	}
	return r, nil
}

// Median returns the middle value, or the mean of the two in the middle; 0 if there
// is none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}
