package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/flannel/e2e/bench/result"
	"github.com/coreos/flannel/e2e/bench/rig"
	"github.com/coreos/flannel/pkg/inet"
)

// maxRoutes is within the number of addresses for simulated peers.
const maxRoutes = 60000

// dimensions are the flags that select scenarios, each a comma-separated list.
type dimensions struct{ links, ends, rules, routes, inside string }

// scenarios returns each link with the first ends, rules, number of routes and family
// inside. Then it varies one of these at a time, on the first link.
func (d dimensions) scenarios() ([]result.Scenario, error) {
	links, err := pick("links", d.links, rig.Links(), linkName)
	if err != nil {
		return nil, err
	}
	ends, err := pick("ends", d.ends, rig.EndKinds(), endsName)
	if err != nil {
		return nil, err
	}
	rules, err := pick("rules", d.rules, rig.RuleSets(), rulesName)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for item := range strings.SplitSeq(d.routes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(item))
		if err != nil || n < 1 || n > maxRoutes {
			return nil, fmt.Errorf("-routes: %q is not a number from 1 to %d", item, maxRoutes)
		}
		numbers = append(numbers, n)
	}
	inside, err := pick("inside", d.inside, inet.Families[:], insideName)
	if err != nil {
		return nil, err
	}
	base := result.Scenario{Link: links[0].Name, Routes: numbers[0], Ends: ends[0].Name, Rules: rules[0].Name, Inside: insideName(inside[0])}
	var found []result.Scenario
	add := func(change func(*result.Scenario)) {
		s := base
		change(&s)
		found = append(found, s)
	}
	for _, l := range links {
		add(func(s *result.Scenario) { s.Link = l.Name })
	}
	for _, e := range ends[1:] {
		add(func(s *result.Scenario) { s.Ends = e.Name })
	}
	for _, r := range rules[1:] {
		add(func(s *result.Scenario) { s.Rules = r.Name })
	}
	for _, n := range numbers[1:] {
		add(func(s *result.Scenario) { s.Routes = n })
	}
	for _, f := range inside[1:] {
		add(func(s *result.Scenario) { s.Inside = insideName(f) })
	}
	return found, nil
}

func subjectName(s rig.Subject) string { return s.Name }
func measureName(m measure) string     { return m.name }
func linkName(l rig.Link) string       { return l.Name }
func endsName(e rig.EndKind) string    { return e.Name }
func rulesName(r rig.RuleSet) string   { return r.Name }

// insideName returns the name of the family of the load's packets.
func insideName(f inet.Family) string {
	if f == inet.IPv4 {
		return result.InsideIPv4
	}
	return result.InsideIPv6
}

// pick returns the elements of all that a comma-separated list names, in the order
// of all. An empty list is all.
func pick[T any](flag, list string, all []T, name func(T) string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	var wanted []string
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if !slices.ContainsFunc(all, func(t T) bool { return name(t) == item }) {
			return nil, fmt.Errorf("-%s: %q is not one of %s", flag, item, listNames(all, name))
		}
		wanted = append(wanted, item)
	}
	return withNames(wanted, all, name), nil
}

func listNames[T any](all []T, name func(T) string) string {
	return strings.Join(namesOf(all, name), ", ")
}

func namesOf[T any](all []T, name func(T) string) []string {
	names := make([]string, len(all))
	for i, t := range all {
		names[i] = name(t)
	}
	return names
}
