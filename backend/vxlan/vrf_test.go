package vxlan

import (
	"strings"
	"testing"
)

// What does not work at an uplink in a VRF is an error before there is a lease.
func TestNewWithUplinkInVRF(t *testing.T) {
	for options, refused := range map[string]bool{`{}`: false, `{"DirectRouting": true}`: true} {
		c := config(t, options)
		c.Uplink.VRF = "red"
		if _, err := New(c); (err != nil) != refused || refused && !strings.Contains(err.Error(), "VRF red") {
			t.Errorf("%s: got %v", options, err)
		}
	}
}
