package daemon

import (
	"errors"
	"testing"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/subnet"
)

// keyless is a network without a key.
type keyless struct{ backend.Network }

func TestRekeyRefuses(t *testing.T) {
	d := New(&Options{}, "test")
	if _, err := d.rekey(t.Context()); !errors.Is(err, errNoNetwork) {
		t.Errorf("without a network: %v", err)
	}
	d.update(func(r *running) {
		r.network, r.ready, r.config = keyless{}, true, &subnet.Config{BackendType: "vxlan"}
	})
	if _, err := d.rekey(t.Context()); !errors.Is(err, errNoKey) {
		t.Errorf("without a key: %v", err)
	}
}
