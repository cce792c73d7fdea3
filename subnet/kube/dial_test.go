package kube

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Of several API servers, those that do not answer delay a connection by an interval each,
// and those that refuse it not at all. A load balancer may choose another server for a
// second connection to the one address.
func TestDial(t *testing.T) {
	const silent, refusing, good, goodSecond = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"
	for name, c := range map[string]struct {
		addrs []string
		takes time.Duration
		fails string
		tries int // 0: as many as fit
	}{
		"good":                       {addrs: []string{good}, tries: 1},
		"silent, good":               {addrs: []string{silent, good}, takes: dialInterval, tries: 2},
		"silent, refusing, good":     {addrs: []string{silent, refusing, good}, takes: 2 * dialInterval, tries: 3},
		"refusing, good":             {addrs: []string{refusing, good}, tries: 2},
		"good at the second attempt": {addrs: []string{goodSecond}, takes: dialInterval, tries: 2},
		"refusing":                   {addrs: []string{refusing, refusing}, fails: "refused\nrefused", tries: 2},
		"silent":                     {addrs: []string{silent}, takes: dialLimit, fails: context.DeadlineExceeded.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var tried []string
				d := &dialer{limit: dialLimit,
					lookup: func(_ context.Context, network, host string) (found []netip.Addr, err error) {
						if network != "ip" || host != "api.example" {
							t.Errorf("look up %s of %s", network, host)
						}
						for _, a := range c.addrs {
							found = append(found, netip.MustParseAddr(a))
						}
						return found, nil
					},
				}
				tries := make(chan string, 10)
				d.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
					host, port, err := net.SplitHostPort(address)
					if network != "tcp" || port != "6443" || err != nil {
						t.Errorf("connect to %s %s", network, address)
					}
					again := len(tries) > 0
					tries <- host
					switch {
					case host == refusing:
						return nil, errors.New("refused")
					case host == good, host == goodSecond && again:
						ours, theirs := net.Pipe()
						theirs.Close()
						return ours, nil
					}
					<-ctx.Done()
					return nil, ctx.Err()
				}
				began := time.Now()
				conn, err := d.dial(t.Context(), "tcp", "api.example:6443")
				if took := time.Since(began); took != c.takes {
					t.Errorf("it takes %v, want %v", took, c.takes)
				}
				if conn != nil {
					conn.Close()
				}
				if text := errorText(err); text != c.fails {
					t.Errorf("error is %q, want %q", text, c.fails)
				}
				for range len(tries) {
					tried = append(tried, <-tries)
				}
				if c.tries != 0 && len(tried) != c.tries || !slices.Contains(c.addrs, tried[0]) {
					t.Errorf("tried %v, want %d attempts", tried, c.tries)
				}
			})
		})
	}
}

// Attempts that succeed after the first one are closed.
func TestDialClosesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan net.Conn, 1)
		d := &dialer{limit: dialLimit, connect: func(ctx context.Context, _, target string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			if target == "a" {
				<-ctx.Done() // it succeeds too late
				late <- theirs
			} else {
				theirs.Close()
			}
			return ours, nil
		}}
		conn, err := d.race(t.Context(), "tcp", []string{"a", "b"})
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if _, err := (<-late).Read(make([]byte, 1)); err == nil {
			t.Error("the connection that came late is open")
		}
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
