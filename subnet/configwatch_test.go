package subnet_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

var errConfigUnnoticed = errors.New("a change of the configuration is not noticed, or taken for another one")

func TestConfigChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.SetConfig([]byte(network16))
		m := newManager(t, fake, network16)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.WatchConfig(ctx) }()
		for _, test := range []struct{ config, refused string }{
			{network16, ""},
			{`{"Network": "10.6.0.0/16"}`, "Network is 10.6.0.0/16, was 10.5.0.0/16"},
			{`{"Network": "10.5.0.0/16", "SubnetMin": "10.5.9.0"}`, ""},
			{`{"Network": "10.5.0.0/16", "SubnetMax": "10.5.99.0"}`, ""},
			{`{"Network": "10.5.0.0/16", "SubnetMin": "10.5.9.0", "Backend": {"Type": "host-gw"}}`, "Backend.Type is host-gw, was udp"},
			{`{"Network": "10.5.0.0/16", "Backend": {"Type": "udp", "Port": 9999}}`, "Backend has other options"},
			{`{"Network": "10.5.0.0/16", "SubnetMax": "10.9.0.0"}`, "SubnetMax"},
			{`{"Network": "10.5.0.0/16", "SubnetLen": 25}`, "SubnetLen is 25, was 24"},
			{`{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}`, "Backend.Type is vxlan, was udp"},
			{`{`, "not valid JSON"},
			{"", "gone"},
			{` {"Network":"10.5.0.0/16"} `, ""},
		} {
			fake.SetConfig(nil)
			if test.config != "" {
				fake.SetConfig([]byte(test.config))
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			got := m.Status().ConfigRefused
			if (got == "") != (test.refused == "") || !strings.Contains(got, test.refused) {
				t.Errorf("%v: %s is refused with %q, want %q", errConfigUnnoticed, test.config, got, test.refused)
			}
		}
		// While the store is away, nothing is known of a change.
		fake.SetDown(errors.New("store is down"))
		time.Sleep(time.Hour)
		if got := m.Status().ConfigRefused; got != "" {
			t.Errorf("%v: refused without an answer: %q", errConfigUnnoticed, got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A family that is turned on or off ends WatchConfig, so that the caller can follow.
// Together with another change it is refused.
func TestConfigTurnsFamilyOn(t *testing.T) {
	const dual = `{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48"}`
	for _, test := range []struct{ before, after, change, refused string }{
		{network16, dual, "IPv6Network:  -> fd00:5::/48", ""},
		{dual, network16, "IPv6Network: fd00:5::/48 -> ", ""},
		{dual, `{"IPv6Network": "fd00:5::/48"}`, "Network: 10.5.0.0/16 -> ", ""},
		{network16, `{"Network": "10.5.0.0/16", "SubnetMin": "10.5.9.0", "IPv6Network": "fd00:5::/48"}`, "IPv6Network", ""},
		{dual, `{"Network": "10.5.0.0/16", "IPv6Network": "fd00:6::/48"}`, "", "IPv6Network is fd00:6::/48, was fd00:5::/48"},
		{dual, `{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48", "IPv6SubnetLen": 80}`, "", "IPv6SubnetLen is 80, was 64"},
		{network16, `{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48", "Backend": {"Type": "vxlan"}}`, "", `IPv6Network is "fd00:5::/48", was ""`},
		{network16, `{"Network": "10.5.0.0/16", "IPv6Network": "fe80::/48"}`, "", "IPv6Network fe80::/48 overlaps the link-local range"},
	} {
		synctest.Test(t, func(t *testing.T) {
			fake := subnettest.NewFake()
			fake.SetConfig([]byte(test.before))
			m := newManager(t, fake, test.before)
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			time.AfterFunc(5*time.Minute, func() { fake.SetConfig([]byte(test.after)) })
			began := time.Now()
			err := m.WatchConfig(ctx)
			change, changed := errors.AsType[*subnet.ConfigChangedError](err)
			switch {
			case changed != (test.change != ""):
				t.Errorf("%s: ended with %v", test.after, err)
			case changed && (!strings.Contains(err.Error(), test.change) || change.To.Networks() != parseConfig(t, test.after).Networks()):
				t.Errorf("%s: %v", test.after, err)
			case changed && time.Since(began) > 6*time.Minute+time.Second:
				t.Errorf("%s: noticed after %v", test.after, time.Since(began))
			}
			if got := m.Status().ConfigRefused; (got == "") != (test.refused == "") || !strings.Contains(got, test.refused) {
				t.Errorf("%s is refused with %q, want %q", test.after, got, test.refused)
			}
		})
	}
}

func TestWaitConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.SetDown(errors.New("store is down"))
		time.AfterFunc(time.Minute, func() { fake.SetDown(nil) })
		time.AfterFunc(2*time.Minute, func() { fake.SetConfig([]byte(network16)) })
		c, err := subnet.WaitConfig(t.Context(), fake, func(error) {})
		if err != nil || c.Network != prefix("10.5.0.0/16") {
			t.Errorf("got %+v, %v", c, err)
		}
		fake.SetConfig([]byte(`{"Network": "10.5.0.0/31"}`))
		var refused *subnet.ConfigError
		if _, err := subnet.WaitConfig(t.Context(), fake, func(error) {}); !errors.As(err, &refused) {
			t.Errorf("got %v, want a *ConfigError at once", err)
		}
	})
}
