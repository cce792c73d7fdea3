package main

import (
	"slices"

	"github.com/coreos/flannel/e2e/bench/result"
	"github.com/coreos/flannel/e2e/bench/rig"
)

// turn is a subject in a scenario, and what is measured there.
type turn struct {
	at       result.Scenario
	subject  rig.Subject
	measures []measure
}

// all measures each subject in each scenario.
func all(scenarios []result.Scenario, subjects []rig.Subject, measures []measure) []turn {
	var turns []turn
	for _, at := range scenarios {
		for _, s := range subjects {
			turns = append(turns, turn{at, s, measures})
		}
	}
	return turns
}

// short measures each thing where something is said of it: all of what carries
// UDP on the usual link, the rest as far as it has a target.
func short() []turn {
	var turns []turn
	for _, part := range []struct {
		at       result.Scenario
		subjects []string
		measures []string
	}{
		{result.Scenario{Link: "on", Routes: 1}, []string{"raw", rig.Reference, "udp-plain", "udp-offload", "udp-kernel"},
			[]string{"tcp1", "tcp1r", "tcp4", "tcp4r", "udp64", "udp1400", "udp-rr", "tcp-rr"}},
		{result.Scenario{Link: "on", Routes: 1000}, []string{"udp-offload", "udp-kernel"}, []string{"tcp1", "udp64"}},
		{result.Scenario{Link: "on", Routes: 10000}, []string{"udp-offload", "udp-kernel"}, []string{"tcp1", "udp64"}},
		{result.Scenario{Link: "on", Routes: 1}, []string{"routes", "host-gw", "vxlan", "wireguard-go", "wireguard"},
			[]string{"tcp1", "tcp4", "udp64", "udp-rr"}},
		{result.Scenario{Link: "off", Routes: 1}, []string{rig.Reference, "udp-plain", "udp-offload", "udp-kernel"},
			[]string{"tcp1", "tcp4", "udp64", "udp-rr"}},
	} {
		subjects := named(part.subjects, rig.Subjects(), subjectName)
		turns = append(turns, all([]result.Scenario{part.at}, subjects, named(part.measures, measures(), measureName))...)
	}
	return turns
}

// only leaves those subjects and measures of the turns that are chosen.
func only(turns []turn, subjects []rig.Subject, measures []measure) []turn {
	var left []turn
	for _, t := range turns {
		var both []measure
		for _, m := range t.measures {
			both = append(both, named([]string{m.name}, measures, measureName)...)
		}
		if len(both) > 0 && len(named([]string{t.subject.Name}, subjects, subjectName)) > 0 {
			left = append(left, turn{t.at, t.subject, both})
		}
	}
	return left
}

// named are those of all that have one of names, in the order of all.
func named[T any](names []string, all []T, name func(T) string) []T {
	var found []T
	for _, t := range all {
		if slices.Contains(names, name(t)) {
			found = append(found, t)
		}
	}
	return found
}

// inTurns collects what key says of each turn, without repeats, in order.
func inTurns[K comparable](turns []turn, key func(turn) K) []K {
	var keys []K
	for _, t := range turns {
		if k := key(t); !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}
