package result

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// Target is a goal for the ratio of a cell's median to another's, or for the median
// itself: at least Limit if more is better, at most if less is.
type Target struct {
	Figure  string   `json:"figure"`
	Subject string   `json:"subject"`
	At      Scenario `json:"at"`
	// Over and OverAt are the other cell's subject and scenario. Without Over, the
	// goal is for the median itself.
	Over   string   `json:"over"`
	OverAt Scenario `json:"over_at"`
	Limit  float64  `json:"limit"`
}

// Outcome is the measured ratio of a target, or the median.
type Outcome struct {
	Target
	// Ratio is that of the medians. Min and Max are the extremes of the rounds'
	// ratios.
	Ratio float64 `json:"ratio"`
	Min   float64 `json:"min"`
	Max   float64 `json:"max"`
	Met   bool    `json:"met"`
}

// Evaluate sets Outcomes, for the targets that the run has the cells of: those
// furthest from being met first.
func (r *Result) Evaluate(targets []Target) {
	r.Outcomes = nil
	for _, t := range targets {
		c, other := r.Cell(t.At, t.Subject, t.Figure), r.Cell(t.OverAt, t.Over, t.Figure)
		var o Outcome
		switch {
		case c != nil && t.Over == "":
			o = Outcome{Target: t, Ratio: c.Median, Min: c.Min, Max: c.Max}
		case c == nil || other == nil || slices.Min(other.Samples) == 0:
			continue
		default:
			extremes := roundRatios(c, other)
			o = Outcome{Target: t, Ratio: c.Median / other.Median, Min: extremes.Min, Max: extremes.Max}
		}
		o.Met = r.score(t.Figure, o.Ratio/t.Limit) >= 1
		r.Outcomes = append(r.Outcomes, o)
	}
	slices.SortStableFunc(r.Outcomes, func(a, b Outcome) int {
		return cmp.Compare(r.score(a.Figure, a.Ratio/a.Limit), r.score(b.Figure, b.Ratio/b.Limit))
	})
}

func (r *Result) printOutcomes(w io.Writer) error {
	if len(r.Outcomes) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nTARGETS: ratios of medians, and the extremes of the rounds' ratios; those not met first\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tRATIO\tTARGET\tMEDIANS\tLOWEST\tHIGHEST\tMET")
	for _, o := range r.Outcomes {
		sign, met := "≥", "yes"
		if r.sense(o.Figure) != More {
			sign = "≤"
		}
		if !o.Met {
			met = "NO"
		}
		what := fmt.Sprintf("%s ÷ %s: %v", o.Subject, o.Over, o.At)
		switch {
		case o.Over == "":
			what = fmt.Sprintf("%s: %v", o.Subject, o.At)
		case o.At != o.OverAt:
			what = fmt.Sprintf("%s, %s ÷ %s", o.Subject, o.At.difference(o.OverAt), o.OverAt.difference(o.At))
		}
		fmt.Fprintf(t, "%s\t%s\t%s %s\t%s\t%s\t%s\t%s\n", o.Figure, what,
			sign, formatNumber(o.Limit), formatNumber(o.Ratio), formatNumber(o.Min), formatNumber(o.Max), met)
	}
	return t.Flush()
}
