package all

import "testing"

func TestPackets(t *testing.T) {
	for _, name := range Types() {
		if got := CarriesPackets(name); got == (name == "alloc") {
			t.Errorf("%s carries packets: %v", name, got)
		}
		if got := AllocatesForPackets(name); got != (name == "wireguard") {
			t.Errorf("%s allocates: %v", name, got)
		}
	}
}
