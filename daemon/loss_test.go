package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/uplink"
)

// The status has what the daemon goes on without, once for both families, until the
// network ends.
func TestLossesAreReported(t *testing.T) {
	r := newRig(t)
	r.state.update(func(p *progress) { p.sides[inet.IPv4].uplink = uplink.Uplink{Name: "eth0", Index: 1} })
	ctx, end := context.WithCancel(t.Context())
	refused := func(context.Context) error { return errors.New("it may not") }
	waits := func(ctx context.Context) error { <-ctx.Done(); return nil }
	ended := make(chan error)
	for _, run := range []task{refused, refused, waits} {
		go func() { ended <- r.state.beside("peers are not probed", run)(ctx) }()
	}
	netnstest.Eventually(t, "both losses are noted", func() error {
		if n := len(r.state.get().losses); n != 2 {
			return fmt.Errorf("%d losses", n)
		}
		return nil
	})
	if got := r.reporter.full().Losses; !slices.Equal(got, []string{"peers are not probed: it may not"}) {
		t.Errorf("losses %q", got)
	}
	end()
	for range 3 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if got := r.reporter.full().Losses; len(got) != 0 {
		t.Errorf("losses %q after the end", got)
	}
}
