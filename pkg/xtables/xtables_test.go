package xtables

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// The policies are those that iptables sets. A kernel without legacy iptables has no
// table.
func TestFilter(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	want := func(hook int, want Policy) {
		t.Helper()
		var got Policy
		err := h.Do(func() (err error) {
			got, err = Filter(hook)
			return err
		})
		if err != nil || got != want {
			t.Errorf("Filter(%d) = %q, %v, want %q", hook, got, err, want)
		}
	}
	want(unix.NF_INET_FORWARD, "")
	out, err := h.Command(t.Context(), "iptables-legacy", "-P", "FORWARD", "DROP").CombinedOutput()
	if err != nil {
		if !strings.Contains(string(out), "Table does not exist") && !strings.Contains(string(out), "can't initialize") {
			t.Fatalf("iptables-legacy: %v\n%s", err, out)
		}
		netnstest.LegacyIPTables.Missing(t, string(out))
		want(unix.NF_INET_FORWARD, "")
		return
	}
	want(unix.NF_INET_FORWARD, Drop)
	want(unix.NF_INET_LOCAL_IN, Accept)
	for _, rule := range []string{"-A FORWARD -s 10.5.0.0/16 -j ACCEPT", "-A INPUT -p udp --dport 8285 -j ACCEPT", "-P INPUT DROP", "-P FORWARD ACCEPT"} {
		if out, err := h.Command(t.Context(), "iptables-legacy", strings.Fields(rule)...).CombinedOutput(); err != nil {
			t.Fatalf("iptables-legacy %s: %v\n%s", rule, err, out)
		}
	}
	want(unix.NF_INET_FORWARD, Accept)
	want(unix.NF_INET_LOCAL_IN, Drop)
}

// Tables that the kernel would not make are errors.
func TestVerdict(t *testing.T) {
	entry := make([]byte, 160)
	entry[targetOffset] = 112
	entry[112+verdictOffset] = 5 // jump to a chain
	for _, at := range []uint32{0, 100, 1 << 31} {
		if p, err := verdict(entry, at); err == nil {
			t.Errorf("at %d the policy is %q, want an error", at, p)
		}
	}
}
