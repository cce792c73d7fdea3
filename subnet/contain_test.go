package subnet_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

// Violations of the promise that bad data is contained.
var (
	errNotContained  = errors.New("bad data is not contained: it has changed what is told of the good")
	errNotCounted    = errors.New("bad data is not counted")
	errOrderMatters  = errors.New("hosts differ: who wins an overlap depends on the order of news")
	errNotDisjoint   = errors.New("two peers' subnets overlap")
	errWinnerIsStuck = errors.New("what an overlap kept out stays out when the winner is gone")
)

func TestBadDataIsContained(t *testing.T) {
	good := map[string]string{"10.5.200.0-24": "192.0.2.7", "10.5.201.0-24": "192.0.2.8"}
	for name, bad := range map[string]struct{ key, value string }{
		"key":                       {"rubbish", "rubbish"},
		"JSON":                      {"10.5.202.0-24", "{"},
		"duplicate subnet":          {"10.5.200.0-24&fd00::-64", `{"PublicIP":"192.0.2.9"}`},
		"covers others":             {"10.5.192.0-18", `{"PublicIP":"192.0.2.9"}`},
		"lies within another":       {"10.5.200.128-25", `{"PublicIP":"192.0.2.9"}`},
		"outside Network":           {"10.9.0.0-24", `{"PublicIP":"192.0.2.9"}`},
		"larger than Network":       {"10.0.0.0-8", `{"PublicIP":"192.0.2.9"}`},
		"claims our address":        {"10.5.203.0-24", `{"PublicIP":"192.0.2.1"}`},
		"covers our subnet":         {"10.5.0.0-17", `{"PublicIP":"192.0.2.9"}`},
		"lies within our subnet":    {"10.5.1.64-26", `{"PublicIP":"192.0.2.9"}`},
		"our subnet, another key":   {"10.5.1.0-24&fd00::-64", `{"PublicIP":"192.0.2.9"}`},
		"address that is no host's": {"10.5.204.0-24", `{"PublicIP":"0.0.0.0"}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				fake.Put("10.5.1.0-24", value(us.PublicIP.String()), 0) // our subnet, so that the tests know it
				for key, ip := range good {
					fake.Put(key, value(ip), 0)
				}
				h := startHost(t, fake)
				told := delivered(t, h, map[netip.Prefix]netip.Addr{})
				before := fmt.Sprint(told)
				// Once by the watch, once by the list.
				for _, compact := range []bool{false, true} {
					counted := h.Manager.BadCount() + fake.BadCount()
					if compact {
						fake.SetDown(errors.New("store is down"))
					}
					fake.Put(bad.key, []byte(bad.value), 0)
					if compact {
						fake.Compact()
						fake.SetDown(nil)
					}
					time.Sleep(5 * time.Second)
					if after := fmt.Sprint(delivered(t, h, told)); after != before {
						t.Errorf("%v: told %v, was %v", errNotContained, after, before)
					}
					if h.Manager.BadCount()+fake.BadCount() == counted {
						t.Error(errNotCounted)
					}
				}
				h.Stop()
				if err := <-h.Errs; err != nil {
					t.Errorf("%v: %v", errNotContained, err)
				}
			})
		})
	}
}

// Of overlapping subnets all hosts choose the same one, in any order of events.
// When it is removed, the next one takes its place.
func TestOverlapHasOneWinner(t *testing.T) {
	keys := []string{"10.5.200.0-24", "10.5.200.0-24&fd00::-64", "10.5.200.0-23", "10.5.200.64-26", "10.5.0.0-17", "10.5.201.0-25"}
	var first string
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			fake := subnettest.NewFake()
			fake.Put("10.5.129.0-24", value(us.PublicIP.String()), 0)
			h := startHost(t, fake)
			order := slices.Clone(keys)
			rand.New(rand.NewPCG(seed, 0)).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for _, key := range order {
				fake.Put(key, fmt.Appendf(nil, `{"PublicIP":"192.0.2.%d"}`, 10+slices.Index(keys, key)), 0)
				synctest.Wait()
			}
			time.Sleep(5 * time.Second)
			told := delivered(t, h, map[netip.Prefix]netip.Addr{})
			for p := range told {
				for q := range told {
					if p != q && p.Overlaps(q) {
						t.Errorf("%v: %v and %v", errNotDisjoint, p, q)
					}
				}
			}
			if first == "" {
				first = fmt.Sprint(told)
			}
			if fmt.Sprint(told) != first {
				t.Errorf("%v: order %v gives %v, another %v", errOrderMatters, order, told, first)
			}
			fake.Remove("10.5.200.0-24")
			fake.Remove("10.5.200.0-24&fd00::-64")
			fake.Remove("10.5.201.0-25")
			time.Sleep(5 * time.Second)
			told = delivered(t, h, told)
			if want := netip.MustParsePrefix("10.5.200.64/26"); !slices.Contains(slices.Collect(maps.Keys(told)), want) {
				t.Errorf("%v: told %v, without %v", errWinnerIsStuck, told, want)
			}
			h.Stop()
			<-h.Errs
		})
	}
}

// Each fault of a key is logged once, and counted each time.
func TestBadDataIsCountedAlways(t *testing.T) {
	var bad subnet.BadData
	for range 3 {
		bad.Skip("10.5.1.0-24", errors.New("fault"))
	}
	if n := bad.Count(); n != 3 {
		t.Errorf("%v: %d of 3", errNotCounted, n)
	}
}

// A new fault of a known key is logged, however many keys are known.
func TestNewFaultOfKnownKeyIsLogged(t *testing.T) {
	var bad subnet.BadData
	skip := func(key, fault string) int64 {
		before := log.Stats.Error.Lines()
		bad.Skip(key, errors.New(fault))
		return log.Stats.Error.Lines() - before
	}
	for i := range 1024 {
		skip(fmt.Sprint(i), "fault")
	}
	for _, test := range []struct {
		key, fault string
		lines      int64
	}{{"7", "fault", 0}, {"7", "another", 1}, {"1024", "fault", 0}} {
		if got := skip(test.key, test.fault); got != test.lines {
			t.Errorf("%s of key %s: %d lines, want %d", test.fault, test.key, got, test.lines)
		}
	}
}
