// Package result holds the result of a benchmark run: figures of subjects in
// scenarios, with their samples. It prints a table, and reads and writes JSON.
//
// Glossary: a subject is a transport between two hosts. A scenario is the link, the
// number of routes, the ends of the load, the firewall rules, and the family of the
// load's packets. A figure is a measured quantity. A cell is a figure of a subject in a
// scenario. A sample is a cell's value in one round. All medians are compared with
// those of the reference, one of the subjects. With IPv6 inside, they are also compared
// with those of the same subject with IPv4 inside.
package result

import (
	"fmt"
	"strconv"
	"strings"
)

// Sense is the direction in which a figure is better.
type Sense string

const (
	// More is better: throughput.
	More Sense = "more"
	// Less is better: latency, cost.
	Less Sense = "less"
	// Share is a percentage, of which less is better. Its ratio to another share is
	// meaningless.
	Share Sense = "share"
	// Count is a number of events that may be 0, of which less is better. It has no
	// ratio either.
	Count Sense = "count"
)

// hasRatio reports whether the ratio of two values means something.
func (s Sense) hasRatio() bool { return s == More || s == Less }

// Figure is a measured quantity.
type Figure struct {
	// Name is short and unique, e.g. "tcp1-cpu".
	Name string `json:"name"`
	// Title is the table's, e.g. "TCP, 1 stream, cost".
	Title string `json:"title"`
	// Unit is that of the samples, e.g. "CPU s/Gb".
	Unit   string `json:"unit"`
	Better Sense  `json:"better"`
	// Detail leaves the figure to the table; the chart omits it.
	Detail bool `json:"detail,omitempty"`
}

// Subject is a transport between two hosts.
type Subject struct {
	Name  string `json:"name"`
	About string `json:"about"`
	// ByHand names the subject that is the same transport set up by hand.
	ByHand string `json:"by_hand,omitempty"`
}

// Scenario is the circumstances of a measurement.
type Scenario struct {
	// Link names the variant of the link between the hosts. Routes is how many peers
	// each host has a route to.
	Link   string `json:"link"`
	Routes int    `json:"routes"`
	// Ends names where the load runs, e.g. "container". Rules names the hosts'
	// firewall rules.
	Ends  string `json:"ends"`
	Rules string `json:"rules"`
	// Inside is the family of the load's packets: InsideIPv4 or InsideIPv6.
	Inside string `json:"inside"`
}

// The families of the load's packets.
const (
	InsideIPv4 = "4"
	InsideIPv6 = "6"
)

// String returns the scenario in words.
func (s Scenario) String() string {
	text := fmt.Sprintf("%s ends, link %s, rules %s, %s", s.Ends, s.Link, s.Rules, countRoutes(s.Routes))
	if s.Inside == InsideIPv6 {
		text += ", IPv6 inside"
	}
	return text
}

func countRoutes(n int) string {
	if n == 1 {
		return "1 route"
	}
	return strconv.Itoa(n) + " routes"
}

// difference returns what s has that differs from other.
func (s Scenario) difference(other Scenario) string {
	var parts []string
	if s.Ends != other.Ends {
		parts = append(parts, s.Ends+" ends")
	}
	if s.Link != other.Link {
		parts = append(parts, "link "+s.Link)
	}
	if s.Rules != other.Rules {
		parts = append(parts, "rules "+s.Rules)
	}
	if s.Routes != other.Routes {
		parts = append(parts, countRoutes(s.Routes))
	}
	if s.Inside != other.Inside {
		parts = append(parts, "IPv"+s.Inside+" inside")
	}
	return strings.Join(parts, ", ")
}

// complete fills in the ends, rules and family of a file that was written before there
// were others.
func (s *Scenario) complete() {
	if s.Ends == "" {
		s.Ends = "host"
	}
	if s.Rules == "" {
		s.Rules = "none"
	}
	if s.Inside == "" {
		s.Inside = InsideIPv4
	}
}
