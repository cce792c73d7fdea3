package subnet

import (
	"strings"
	"testing"
)

// Whoever may write to the store must not be able to write to the terminals of
// those who look at leases.
func TestTextOfALeaseIsPrintable(t *testing.T) {
	const evil = "a\\u001b[2J\\r\\nb\\u009b\\u202e" + "\x7f"
	value := `{"PublicIP":"192.0.2.1","BackendType":"` + evil + `","NodeID":"` + evil + `","Hostname":"` + evil + strings.Repeat("x", 1000) + `","Claim":"` + evil + `","DataPath":"` + evil + `"}`
	l, err := ParseLease("10.5.1.0-24", []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	const want = "a?[2J??b???"
	a := l.Attrs
	for name, text := range map[string]string{"BackendType": a.BackendType, "NodeID": a.NodeID, "Challenge": a.Challenge, "DataPath": a.DataPath} {
		if text != want {
			t.Errorf("%s is %q, want %q", name, text, want)
		}
	}
	if !strings.HasPrefix(a.Hostname, want+"x") || len(a.Hostname) != 253 {
		t.Errorf("Hostname is %q, of %d bytes", a.Hostname, len(a.Hostname))
	}
}
