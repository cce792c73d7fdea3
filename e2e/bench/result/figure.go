// Package result holds the result of a benchmark run: figures of subjects in
// scenarios, with their samples. It prints a table, and reads and writes JSON.
//
// Glossary: a subject is a transport between two hosts. A scenario is the link and
// the number of routes. A figure is a measured quantity. A cell is a figure of a
// subject in a scenario. A sample is a cell's value in one round. All medians are
// compared with those of the reference, one of the subjects.
package result

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
)

// Figure is a measured quantity.
type Figure struct {
	// Name is short and unique, e.g. "tcp1-cpu".
	Name string `json:"name"`
	// Title is the table's, e.g. "TCP, 1 stream, cost".
	Title string `json:"title"`
	// Unit is that of the samples, e.g. "CPU s/Gb".
	Unit   string `json:"unit"`
	Better Sense  `json:"better"`
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
}
