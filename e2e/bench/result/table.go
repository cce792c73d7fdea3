package result

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes the machine's description and a table for each scenario. links maps
// the link variants to their descriptions.
func (r *Result) Print(w io.Writer, links map[string]string) error {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d cores; Linux %s; %s; %s; %s; %s\n", m.CPU, m.Cores, m.Kernel, m.Go, m.Iperf3, m.Sockperf, m.Date.Format(time.DateOnly))
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
		fmt.Fprintf(w, "\n%s\n\n", s.title(links))
		fmt.Fprintf(t, "FIGURE\tSUBJECT\tMEDIAN\tLOWEST\tHIGHEST\t÷ %s\t÷ BY HAND\n", r.Reference)
		for _, f := range r.Figures {
			r.printFigure(t, s, f)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return r.printOutcomes(w)
}

func (s Scenario) title(links map[string]string) string {
	routes := "1 route"
	if s.Routes != 1 {
		routes = strconv.Itoa(s.Routes) + " routes"
	}
	return fmt.Sprintf("LINK %s, %s: %s", s.Link, routes, links[s.Link])
}

func (r *Result) printFigure(w io.Writer, s Scenario, f Figure) {
	title := f.Title + ", " + f.Unit
	for _, subject := range r.Subjects {
		c := r.Cell(s, subject.Name, f.Name)
		if c == nil {
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", title, subject.Name, formatNumber(c.Median), formatNumber(c.Min), formatNumber(c.Max), formatRatio(r.Ratio(c)), formatRatio(r.RatioByHand(c)))
		title = ""
	}
}

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
