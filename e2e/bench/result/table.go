package result

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes the machine's description and a table for each scenario. about maps
// the links, ends and rules to their descriptions.
func (r *Result) Print(w io.Writer, about map[string]string) error {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d cores; Linux %s; %s; %s; %s\n", m.CPU, m.Cores, m.Kernel, m.Go, m.Iperf3, m.Date.Format(time.DateOnly))
	fmt.Fprintf(w, "%d interleaved rounds of %d s a measurement; TCP %s; other load before the trials: median %s, at most %s\n",
		r.Rounds, r.Seconds, r.Congestion, percent(Median(r.Foreign)), percent(highest(r.Foreign)))
	if r.Repeated > 0 {
		fmt.Fprintf(w, "measurements that failed and were repeated: %d\n", r.Repeated)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range r.Subjects {
		fmt.Fprintf(t, "%s\t%s\n", s.Name, s.About)
	}
	for _, name := range slices.Sorted(maps.Keys(r.LeftOut)) {
		fmt.Fprintf(t, "%s\tleft out: %s\n", name, r.LeftOut[name])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, s := range r.Scenarios {
		fmt.Fprintf(w, "\n%v\nends: %s\nlink: %s\nrules: %s\n\n", s, about[s.Ends], about[s.Link], about[s.Rules])
		fmt.Fprintf(t, "FIGURE\tSUBJECT\t÷ %s\tMEDIAN\tSPREAD\t÷ BY HAND%s\n", r.Reference, inIPv6(s, "\t÷ INSIDE 4"))
		for _, c := range r.ordered(s) {
			r.printCell(t, c)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return r.printOutcomes(w)
}

// ordered returns the cells of a scenario: those that lose against the reference
// first, the worst at the top; then the others by figure.
func (r *Result) ordered(s Scenario) []*Cell {
	var losing, others []*Cell
	for _, f := range r.Figures {
		for _, subject := range r.Subjects {
			c := r.Cell(s, subject.Name, f.Name)
			if c == nil {
				continue
			}
			if ratio, ok := r.Ratio(c); ok && r.score(f.Name, ratio) < 1 {
				losing = append(losing, c)
			} else {
				others = append(others, c)
			}
		}
	}
	slices.SortStableFunc(losing, func(a, b *Cell) int {
		ratioA, _ := r.Ratio(a)
		ratioB, _ := r.Ratio(b)
		return cmp.Compare(r.score(a.Figure, ratioA), r.score(b.Figure, ratioB))
	})
	return append(losing, others...)
}

// score returns a ratio such that more is better.
func (r *Result) score(figure string, ratio float64) float64 {
	if r.sense(figure) == More {
		return ratio
	}
	return 1 / ratio // +Inf for 0
}

func (r *Result) printCell(w io.Writer, c *Cell) {
	i := slices.IndexFunc(r.Figures, func(f Figure) bool { return f.Name == c.Figure })
	fmt.Fprintf(w, "%s, %s\t%s\t%s\t%s\t%s\t%s%s\n", r.Figures[i].Title, r.Figures[i].Unit, c.Subject,
		r.formatRounds(c, r.reference(c)), formatNumber(c.Median), formatSpread(Spread{c.Min, c.Max}), formatRatio(r.RatioByHand(c)),
		inIPv6(c.Scenario, "\t"+r.formatRounds(c, r.insideIPv4(c))))
}

// inIPv6 returns text for a scenario with IPv6 inside, whose table has a column more.
func inIPv6(s Scenario, text string) string {
	if s.Inside != InsideIPv6 {
		return ""
	}
	return text
}

// formatRounds formats the ratio to another cell, with the extremes of the rounds'
// ratios.
func (r *Result) formatRounds(c, other *Cell) string {
	ratio, ok := r.ratio(c, other)
	if !ok || c == other || slices.Min(other.Samples) == 0 {
		return formatRatio(ratio, ok)
	}
	return formatNumber(ratio) + " (" + formatSpread(roundRatios(c, other)) + ")"
}

func formatSpread(s Spread) string { return formatNumber(s.Min) + "–" + formatNumber(s.Max) }

// formatRatio formats a ratio, or "-" if there is none.
func formatRatio(ratio float64, ok bool) string {
	if !ok {
		return "-"
	}
	return formatNumber(ratio)
}

// formatNumber formats v with three significant digits, or all those before the point.
func formatNumber(v float64) string {
	if v == 0 {
		return "0"
	}
	// %.2e rounds to three digits, which may make one more before the point.
	exponent := 0
	if _, e, ok := strings.Cut(strconv.FormatFloat(v, 'e', 2, 64), "e"); ok {
		exponent, _ = strconv.Atoi(e) // FormatFloat has written it
	}
	return strconv.FormatFloat(v, 'f', max(0, 2-exponent), 64)
}

func percent(share float64) string { return strconv.FormatFloat(100*share, 'f', 0, 64) + " %" }

func highest(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	return slices.Max(values)
}
