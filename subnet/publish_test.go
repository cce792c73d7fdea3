package subnet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

func TestPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		h := startHost(t, fake)
		changed := subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.200"), BackendType: us.BackendType, BackendData: json.RawMessage(`{"PublicKey":"new"}`)}
		if err := h.Manager.AwaitPublished(t.Context()); err != nil {
			t.Errorf("nothing was published, and it is waited for: %v", err)
		}
		h.Manager.Publish(changed)
		if err := h.Manager.AwaitPublished(t.Context()); err != nil {
			t.Error(err)
		}
		changed.PublicIP = us.PublicIP // by which we know our own lease
		if l := fake.OnlyLease(t); l.Subnet != h.Lease.Subnet || !l.Attrs.Equal(changed) {
			t.Errorf("the store has %v %s", l, l.Attrs.BackendData)
		}

		// Another party edits our lease: it still names us, with other data.
		edited := fake.OnlyLease(t).Attrs
		edited.BackendData = json.RawMessage(`{"PublicKey":"wrong"}`)
		before, err := fake.Update(t.Context(), fake.OnlyLease(t), edited, ttl)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		after := fake.OnlyLease(t)
		if !after.Attrs.Equal(changed) || after.Rev == before.Rev {
			t.Errorf("the store has %v %s", after, after.Attrs.BackendData)
		}
		synctest.Wait()
		if again := fake.OnlyLease(t); again.Rev != after.Rev {
			t.Errorf("our own write was taken for another's: revision %d, then %d", after.Rev, again.Rev)
		}
		h.Stop()
		if err := <-h.Errs; err != nil {
			t.Error(err)
		}
	})
}

// AwaitPublished waits until the store has the last published attributes, or until
// its ctx ends.
func TestAwaitPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		h := startHost(t, fake)
		publish := func(key string) {
			changed := us
			changed.BackendData = fmt.Appendf(nil, `{"PublicKey":%q}`, key)
			h.Manager.Publish(changed)
		}
		fake.SetDown(errors.New("away"))
		publish("first")
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.Manager.AwaitPublished(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a store that is away has taken it: %v", err)
		}
		var writing, goOn [2]chan struct{}
		for i := range writing {
			writing[i], goOn[i] = make(chan struct{}), make(chan struct{})
			fake.Inject(subnettest.OpUpdate, subnettest.Fault{Entered: writing[i], Wait: goOn[i]})
		}
		fake.SetDown(nil)
		<-writing[0]
		publish("second")
		awaited := make(chan error, 1)
		go func() { awaited <- h.Manager.AwaitPublished(t.Context()) }()
		close(goOn[0])
		<-writing[1]
		synctest.Wait()
		if len(awaited) > 0 {
			t.Error("the store has taken the first, and the second is waited for no more")
		}
		close(goOn[1])
		if err := <-awaited; err != nil {
			t.Error(err)
		}
		if got := string(fake.OnlyLease(t).Attrs.BackendData); got != `{"PublicKey":"second"}` {
			t.Errorf("the store has %s", got)
		}
		h.Stop()
		if err := <-h.Errs; err != nil {
			t.Error(err)
		}
	})
}
