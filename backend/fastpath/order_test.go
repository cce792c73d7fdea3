package fastpath

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestOrder has a flow go back to the fast path while a queue of the long way still
// has packets of it. None overtakes them.
func TestOrder(t *testing.T) { eachWay(t, testOrder) }

func testOrder(t *testing.T, direct bool) {
	_, a, b := newHostsBy(t, direct)
	for _, h := range []*host{a, b} {
		h.start(h.known())
	}
	s := warm(t, a, b)
	b.Exec("tc qdisc add dev " + bridgeName + " root tbf rate 400kbit burst 2000 limit 1000000")
	before := outOfOrder(t, b)
	b.must(b.programs.suspend())
	message := make([]byte, 1000)
	write := func() {
		t.Helper()
		if _, err := s.from.Write(message); err != nil {
			t.Fatal(err)
		}
	}
	const queued, more = 8, 40
	for range queued {
		write()
	}
	b.must(b.Do(func() error { return b.programs.renew(false) }))
	for i := range queued + more {
		if _, err := io.ReadFull(s.to, message); err != nil {
			t.Fatal(err)
		}
		if i < more { // a packet has left the queue
			write()
		}
	}
	if n := outOfOrder(t, b) - before; n > 0 {
		t.Errorf("%d packets have overtaken others", n)
	}
	b.until("the flow takes the fast path", func() bool {
		_, received := b.fast(func() { s.exchange(20) })
		return received >= 20
	})
}

// outOfOrder counts the TCP segments that the host's container has received before
// those in front of them.
func outOfOrder(t *testing.T, h *host) int {
	t.Helper()
	var text []byte
	h.must(h.container.Do(func() (err error) { text, err = os.ReadFile("/proc/thread-self/net/netstat"); return err }))
	var names []string
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 || fields[0] != "TcpExt:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "TCPOFOQueue" {
				n, err := strconv.Atoi(fields[i])
				h.must(err)
				return n
			}
		}
	}
	t.Fatal("the kernel does not count segments out of order")
	return 0
}
