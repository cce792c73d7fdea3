package e2e

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"
)

// otherAddr is the address of the host that gets a paused one's subnet.
const otherAddr = "192.168.77.98"

// hotCopy copies the data of the running members. A restart follows, so that the
// copy, once it is put back and started, has the term of what it replaces.
func (r *faultRig) hotCopy() []string {
	r.t.Helper()
	copies := r.etcd.Copy()
	r.etcd.Stop()
	r.etcd.Restart()
	return copies
}

// wipe and putBack prepare a loss of data. The function that they return causes it,
// after a host has written to the former data.
func wipe(r *faultRig) (change func()) { return r.etcd.Wipe }

func putBack(r *faultRig) (change func()) {
	copies := r.hotCopy()
	return func() { r.etcd.PutBack(copies) }
}

// pausedAcross pauses a daemon while etcd gets other data and another host gets the
// subnet; if equal, at the revision of the paused host's last write. The daemon must
// end as soon as it can reach etcd. Then the other host leaves.
func pausedAcross(name string, equal bool, prepare func(*faultRig) func()) fault {
	return fault{name: name, cause: func(r *faultRig, rnd *rand.Rand) (func(), []*faultHost) {
		h := r.one(rnd)
		key := "subnets/" + h.storedKey()
		change := prepare(r)
		r.fill(r.revision() + 20) // beyond what the new data bring along
		r.keys.del(r.t, key)
		rev := int64(0)
		eventually(r.t, "the host creates its key again", func() (err error) {
			rev, err = r.written(key)
			return err
		})
		h.unrecorded.Store(true) // until it can know of the other host
		h.daemon.signal(syscall.SIGSTOP)
		r.history.leave()
		change()
		return func() {
			r.newStore()
			for _, other := range r.hosts { // their keys are there before the revision is chosen
				if other != h {
					eventually(r.t, "the hosts that run create their keys", func() error {
						_, err := r.written("subnets/" + other.storedKey())
						return err
					})
				}
			}
			r.keys.del(r.t, key)
			if equal {
				r.fill(rev - 1)
			} else {
				r.fill(rev + 10)
			}
			r.keys.put(r.t, key, fmt.Sprintf(`{"PublicIP":%q,"NodeID":"other"}`, otherAddr), 0)
			if at, err := r.written(key); err != nil || equal && at != rev {
				r.t.Errorf("the other host's key is at revision %d, %v; the paused one's was at %d", at, err, rev)
			}
			began := time.Now()
			h.daemon.signal(syscall.SIGCONT)
			h.daemon.wait()
			limit := convergence
			if raceEnabled {
				limit *= 3
			}
			if took := time.Since(began); took > limit {
				r.t.Errorf("%s: two hosts held %s for %v", name, key, took)
			}
			if value := r.keys.list(r.t, "subnets")[h.storedKey()]; value != fmt.Sprintf(`{"PublicIP":%q,"NodeID":"other"}`, otherAddr) {
				r.t.Errorf("%s: the paused host has overwritten the other's key: %s", name, value)
			}
			r.keys.del(r.t, key)
			h.start()
			h.unrecorded.Store(false)
		}, []*faultHost{h}
	}}
}

// written returns the revision of a key's last write.
func (r *faultRig) written(key string) (int64, error) {
	answer, err := r.keys.Get(limited(r.t), prefix+"/"+key)
	if err == nil && len(answer.Kvs) == 0 {
		err = fmt.Errorf("there is no key %s", key)
	}
	if err != nil {
		return 0, err
	}
	return answer.Kvs[0].ModRevision, nil
}

func (r *faultRig) revision() int64 {
	r.t.Helper()
	answer, err := r.keys.Get(limited(r.t), prefix+"/chaos")
	r.must(err)
	return answer.Header.Revision
}

// fill makes changes of another key until etcd is at a revision.
func (r *faultRig) fill(rev int64) {
	r.t.Helper()
	for at := r.revision(); at < rev; {
		answer, err := r.keys.Put(limited(r.t), prefix+"/chaos", "fill")
		r.must(err)
		at = answer.Header.Revision
	}
}
