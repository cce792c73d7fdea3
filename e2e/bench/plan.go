package main

import (
	"slices"

	"github.com/coreos/flannel/e2e/bench/result"
	"github.com/coreos/flannel/e2e/bench/rig"
)

// trial is a subject in a scenario, with its measures.
type trial struct {
	at       result.Scenario
	subject  rig.Subject
	measures []measure
}

// cross returns a trial for each subject in each scenario.
func cross(scenarios []result.Scenario, subjects []rig.Subject, measures []measure) []trial {
	var trials []trial
	for _, at := range scenarios {
		for _, s := range subjects {
			trials = append(trials, trial{at, s, measures})
		}
	}
	return trials
}

// short returns the trials that the documents cite: everything of udp on the usual
// link, and of the rest what has a target.
func short() []trial {
	var trials []trial
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
		subjects := withNames(part.subjects, rig.Subjects(), subjectName)
		trials = append(trials, cross([]result.Scenario{part.at}, subjects, withNames(part.measures, measures(), measureName))...)
	}
	return trials
}

// restrict returns the trials reduced to these subjects and measures.
func restrict(trials []trial, subjects []rig.Subject, measures []measure) []trial {
	var left []trial
	for _, t := range trials {
		var both []measure
		for _, m := range t.measures {
			both = append(both, withNames([]string{m.name}, measures, measureName)...)
		}
		if len(both) > 0 && len(withNames([]string{t.subject.Name}, subjects, subjectName)) > 0 {
			left = append(left, trial{t.at, t.subject, both})
		}
	}
	return left
}

// withNames returns the elements of all that have one of names, in the order of all.
func withNames[T any](names []string, all []T, name func(T) string) []T {
	var found []T
	for _, t := range all {
		if slices.Contains(names, name(t)) {
			found = append(found, t)
		}
	}
	return found
}

// distinct returns the keys of the trials, without repeats, in order.
func distinct[K comparable](trials []trial, key func(trial) K) []K {
	var keys []K
	for _, t := range trials {
		if k := key(t); !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}
