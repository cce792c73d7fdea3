package daemon

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/masq"
	"github.com/coreos/flannel/subnet"
)

// With -ip-masq the rules are set before Run, kept in Run, and removed after it
// unless the kernel goes on with packets. Without, only those of an earlier run are
// removed, and no failure ends the run.
func TestFirewall(t *testing.T) {
	network, own := netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("10.5.7.0/24")
	config := &subnet.Config{Range: subnet.Range{Network: network}}
	errNoTables := errors.New("no nftables")
	for _, tt := range []struct {
		name    string
		enabled bool
		left    string // the kind of what stays in the kernel
		err     error  // what remove returns
		want    []string
		fails   bool
	}{
		{"enabled", true, "", nil, []string{"set", "keep", "remove"}, false},
		{"enabled, not removed", true, "", errNoTables, []string{"set", "keep", "remove"}, true},
		{"enabled, a device stays", true, "device", nil, []string{"set", "keep"}, false},
		{"enabled, routes stay", true, "route", nil, []string{"set", "keep"}, false},
		{"enabled, the table alone stays", true, "nftables table", nil, []string{"set", "keep", "remove"}, false},
		{"disabled", false, "device", nil, []string{"remove"}, false},
		{"disabled, without nftables", false, "", errNoTables, []string{"remove"}, false},
	} {
		f := newFirewall(&Options{forwardRules: true, ipMasq: tt.enabled})
		var calls []string
		ctx, cancel := context.WithCancel(t.Context())
		call := func(name string, r masq.Rules) {
			calls = append(calls, name)
			if want := (masq.Rules{Network: network, Subnet: own}); !reflect.DeepEqual(r, want) {
				t.Errorf("%s: %s of %+v, want %+v", tt.name, name, r, want)
			}
		}
		f.set = func(r masq.Rules) error { call("set", r); return nil }
		f.keep = func(ctx context.Context, r masq.Rules) error { call("keep", r); <-ctx.Done(); return nil }
		f.leftovers = func(netip.Prefix) (left []all.Leftover, err error) {
			if tt.left != "" {
				left = append(left, all.Leftover{Kind: tt.left})
			}
			return left, nil
		}
		f.remove = func(p netip.Prefix) error {
			calls = append(calls, "remove")
			if p != network {
				t.Errorf("%s: removed %v", tt.name, p)
			}
			return tt.err
		}
		if err := f.apply(config, subnet.Lease{Subnet: own}); err != nil {
			t.Errorf("%s: apply: %v", tt.name, err)
		}
		cancel()
		if err := errors.Join(f.Run(ctx), f.finish()); (err != nil) != tt.fails || !slices.Equal(calls, tt.want) {
			t.Errorf("%s: %v after %q, want %q", tt.name, err, calls, tt.want)
		}
	}
}

func TestFirewallApplyFails(t *testing.T) {
	f := newFirewall(&Options{forwardRules: true, ipMasq: true})
	f.set = func(masq.Rules) error { return errUnusable }
	network, own := netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("10.5.7.0/24")
	if err := f.apply(&subnet.Config{Range: subnet.Range{Network: network}}, subnet.Lease{Subnet: own}); !errors.Is(err, errUnusable) {
		t.Errorf("apply = %v", err)
	}
}
