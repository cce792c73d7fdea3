// Package result holds what a run of the benchmark has found: figures of
// subjects in scenarios, with their samples, as a table and as JSON.
//
// Glossary: a subject is one way of carrying packets between two hosts, a
// scenario the circumstances under which it is measured, a figure what is
// measured, a cell a figure of a subject in a scenario, a sample a cell's value
// in one round. The reference is the subject to whose medians all others' are
// put in relation.
package result

// Sense says which way a figure is good.
type Sense string

const (
	// More is better: throughput.
	More Sense = "more"
	// Less is better: latency, cost.
	Less Sense = "less"
	// Share is a part of something, 0 to 100 %, of which less is better and
	// whose ratio to another share says nothing.
	Share Sense = "share"
)

// Figure is something that is measured.
type Figure struct {
	// Name is short and unique, e.g. "tcp1-cpu".
	Name string `json:"name"`
	// Title is for people, e.g. "TCP, 1 stream, cost".
	Title string `json:"title"`
	// Unit is that of the samples, e.g. "CPU s/Gb".
	Unit   string `json:"unit"`
	Better Sense  `json:"better"`
}

// Subject is one way of carrying packets.
type Subject struct {
	Name  string `json:"name"`
	About string `json:"about"`
	// ByHand names the subject that is the same thing set up by hand.
	ByHand string `json:"by_hand,omitempty"`
}

// Scenario is the circumstances of a measurement.
type Scenario struct {
	// Link names the variant of the link between the hosts, Routes is how many
	// peers each host has a route to.
	Link   string `json:"link"`
	Routes int    `json:"routes"`
}
