package main

import (
	"cmp"
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

// usual is the scenario that most targets are about.
var usual = result.Scenario{Link: "on", Routes: 1, Ends: "container", Rules: "masq", Inside: result.InsideIPv4}

// The other scenarios of the short plan, which differ from the usual one in one
// respect.
func offLink() result.Scenario   { s := usual; s.Link = "off"; return s }
func nested() result.Scenario    { s := usual; s.Ends = "nested"; return s }
func local() result.Scenario     { s := usual; s.Ends = "local"; return s }
func noRules() result.Scenario   { s := usual; s.Rules = "none"; return s }
func manyRules() result.Scenario { s := usual; s.Rules = "rules"; return s }
func manyPeers() result.Scenario { s := usual; s.Routes = 10000; return s }
func insideV6() result.Scenario  { s := usual; s.Inside = result.InsideIPv6; return s }

// bothFamilies are the subjects whose path is the same for IPv4 and IPv6 inside. The fast
// path carries IPv4 alone.
func bothFamilies() []string {
	return []string{"udp-plain", "udp-offload", "udp-kernel", "host-gw", "vxlan", "wireguard"}
}

// short returns the trials that the documents cite: everything of the fast path and
// of its rivals in the usual scenario, and of the rest what has a target.
func short() []trial {
	var trials []trial
	for _, part := range []struct {
		at       result.Scenario
		subjects []string
		measures []string
	}{
		{usual, []string{rig.Reference, "udp-kernel", "udp-fast", "host-gw"},
			[]string{"tcp1", "tcp1r", "tcp4", "tcp4r", "udp64", "udp1400", "udp-rr", "tcp-rr", "crr"}},
		{usual, []string{"raw", "fou", "bareudp", "udp-plain", "udp-offload", "host-gw-fast", "vxlan", "wireguard-go", "wireguard"},
			[]string{"tcp1", "tcp4", "udp64", "udp-rr"}},
		{offLink(), []string{rig.Reference, "udp-kernel", "udp-fast", "host-gw"}, []string{"tcp1", "tcp4", "udp64", "udp-rr", "crr"}},
		{offLink(), []string{"udp-offload", "host-gw-fast"}, []string{"tcp1", "udp64"}},
		{manyRules(), []string{rig.Reference, "udp-fast"}, []string{"tcp1", "tcp4", "udp64", "udp-rr", "crr"}},
		{noRules(), []string{rig.Reference, "udp-fast"}, []string{"tcp1", "udp64", "udp-rr"}},
		{nested(), []string{rig.Reference, "udp-offload", "udp-kernel", "udp-fast", "host-gw"}, []string{"tcp1"}},
		{local(), []string{rig.Reference, "udp-fast"}, []string{"tcp1", "udp-rr"}},
		{manyPeers(), []string{"udp-kernel", "udp-fast"}, []string{"tcp1", "udp64"}},
		{insideV6(), bothFamilies(), []string{"tcp1", "udp-rr"}},
	} {
		subjects := withNames(part.subjects, rig.Subjects(), subjectName)
		trials = append(trials, cross([]result.Scenario{part.at}, subjects, withNames(part.measures, measures(), measureName))...)
	}
	return trials
}

// interleave sorts trials by scenario, then by subject. A subject's trials with IPv4 and
// with IPv6 inside follow each other, since they are compared.
func interleave(trials []trial) []trial {
	either := func(t trial) result.Scenario { t.at.Inside = ""; return t.at }
	scenarios := distinct(trials, either)
	order := namesOf(rig.Subjects(), subjectName)
	slices.SortStableFunc(trials, func(a, b trial) int {
		return cmp.Or(cmp.Compare(slices.Index(scenarios, either(a)), slices.Index(scenarios, either(b))),
			cmp.Compare(slices.Index(order, a.subject.Name), slices.Index(order, b.subject.Name)))
	})
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
