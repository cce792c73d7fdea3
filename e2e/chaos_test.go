package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	chaosSeed   = flag.Uint64("chaos-seed", 0, "faults of TestChaos; 0: chosen at random")
	chaosRounds = flag.Int("chaos-rounds", 0, "TestChaos: how many faults; 0: as long as -chaos says")
	chaosFaults = flag.String("chaos-faults", "", "TestChaos: `regexp` of the faults to choose from")
	chaosTime   = flag.Duration("chaos", 30*time.Second, "TestChaos: for how long it begins new rounds")
)

const (
	// chaosHosts is the smallest number of hosts that leaves two without the
	// fault of a third.
	chaosHosts = 3
	// A fault lasts a random time between these.
	faultLeast, faultMost = 100 * time.Millisecond, 2 * time.Second
	// convergence is a promise of docs/promises.md: after etcd is back, every
	// table equals the store within this time.
	convergence = 5 * time.Second
	// askEvery is the time between two reads of each daemon's lease.
	askEvery = 250 * time.Millisecond
)

// A lease that is made when a fault is over.
const newsKey = "10.5.220.0-24"

var (
	newsSubnet = netip.MustParsePrefix("10.5.220.0/24")
	newsAddr   = netip.MustParseAddr("192.168.77.220")
)

// The test raises one random fault at a time, under load. After each fault,
// each subnet had one owner in all of the history, and every table equals the
// store. No packet was lost except by hosts with the fault, the flows of all
// containers take the fast path, nothing leaked, no fault of offloads is named, and the
// state of other programs is unchanged.
func TestChaos(t *testing.T) {
	testChaos(t, slices.Concat(faults, containerFaults), false, *chaosTime)
}

// testChaos chooses from faults that -chaos-faults allows.
func testChaos(t *testing.T, faults []fault, dual bool, limit time.Duration) {
	t.Helper()
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("replay with: go test ./e2e -run '^%s$' -chaos-seed %d -chaos-rounds N", t.Name(), seed)
	only, err := regexp.Compile(*chaosFaults)
	if err != nil {
		t.Fatalf("parse -chaos-faults: %v", err)
	}
	chosen := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return !only.MatchString(f.name) })
	if len(chosen) == 0 {
		t.Fatalf("-chaos-faults %q chooses no fault", *chaosFaults)
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	r := newFaultRig(t, chaosHosts, dual, "-ip-masq", "-offload-probe-interval=1s")
	r.askDaemons()
	began, count := time.Now(), make(map[string]int)
	var slowest time.Duration
	rounds := 0
	for ; *chaosRounds > 0 && rounds < *chaosRounds || *chaosRounds == 0 && time.Since(began) < limit; rounds++ {
		f := chosen[rnd.IntN(len(chosen))]
		took := r.round(f, rnd)
		t.Logf("round %d: %s: tables equalled the store after %v", rounds+1, f.name, took.Round(time.Millisecond))
		count[f.name]++
		slowest = max(slowest, took)
		if t.Failed() {
			t.Fatalf("violation in round %d (%s) of seed %d", rounds+1, f.name, seed)
		}
	}
	if err := r.history.check(); err != nil {
		t.Error(err)
	}
	t.Logf("%d rounds, %d kinds of faults, %d steps of history; slowest convergence %v",
		rounds, len(count), r.history.size(), slowest.Round(time.Millisecond))
}

// round does one fault and checks everything after it. It returns how long the
// tables took to equal the store.
func (r *faultRig) round(f fault, rnd *rand.Rand) time.Duration {
	r.t.Helper()
	before, began := r.count(), time.Now()
	mend, hurt := f.cause(r, rnd)
	lasts := faultLeast + time.Duration(rnd.Int64N(int64(faultMost-faultLeast)))
	<-time.After(lasts)
	if mend != nil {
		mend()
	}
	took := r.converge(f.name)
	gap := time.Duration(0)
	for _, fl := range r.flows {
		if f.hurts(hurt, fl) {
			fl.works(r.t)
			gap = max(gap, fl.gap(began))
		}
	}
	if mend == nil && len(hurt) > 0 {
		r.t.Logf("%s: packets of host %s were lost for %v", f.name, hurt[0].Name(), gap.Round(time.Millisecond))
	}
	recovered, complete := time.Now(), true
	for _, fl := range r.flows {
		from := began
		if f.hurts(hurt, fl) {
			from = recovered
		}
		fl.works(r.t) // so that there is something to count
		if err := fl.lost(from, time.Now()); err != nil {
			r.t.Errorf("%s: %v", f.name, err)
			complete = false
		}
	}
	if !complete {
		r.explain(before)
	}
	r.fast(f.name)
	for _, h := range r.hosts {
		eventually(r.t, "the daemon uses what it used", h.leaks)
		if err := h.foreign(); err != nil {
			r.t.Errorf("%s: %v", f.name, err)
		}
		if strings.Contains(h.daemon.log.String(), "offload fault") {
			r.t.Errorf("%s: host %s has found a fault of offloads", f.name, h.Name())
		}
	}
	if err := r.zombies(); err != nil {
		r.t.Errorf("%s: %v", f.name, err)
	}
	return took
}

// converge waits until every table equals the store and every host has the
// news. It returns the time that this took. A time above convergence is a
// failure.
func (r *faultRig) converge(after string) time.Duration {
	r.t.Helper()
	began := time.Now()
	settled := fmt.Sprintf("after %q every table equals the store", after)
	eventually(r.t, settled, r.tables)
	// The tables may have been equal before. Only news shows that every watch
	// works.
	r.keys.put(r.t, "subnets/"+newsKey, fmt.Sprintf(`{"PublicIP":"%v"}`, newsAddr), 0)
	for _, h := range r.hosts {
		h.awaitPeer(newsSubnet, newsAddr)
	}
	r.keys.del(r.t, "subnets/"+newsKey)
	eventually(r.t, settled, r.tables)
	took := time.Since(began)
	limit := convergence
	if raceEnabled {
		limit *= 3 // the race detector slows everything several times
	}
	if took > limit {
		r.t.Errorf("%s: the tables equalled the store after %v, more than %v", after, took, limit)
	}
	return took
}

// askDaemons records the subnet that each daemon reports, until the test ends.
func (r *faultRig) askDaemons() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, len(r.hosts))
	for _, h := range r.hosts {
		go func() {
			defer func() { done <- struct{}{} }()
			tick := time.NewTicker(askEvery)
			defer tick.Stop()
			for ctx.Err() == nil {
				r.history.recordDaemon(ctx, h)
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		}()
	}
	r.t.Cleanup(func() {
		cancel()
		for range r.hosts {
			<-done
		}
	})
}
