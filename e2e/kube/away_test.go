package kube

import (
	"flag"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/e2e/kube/controlplane"
)

var apiAway = flag.Duration("api-away", 5*time.Second, "TestAPIServerAway: for how long")

// While the API server is away packets flow, and a daemon that starts has what it
// had. When it is back, changes arrive within seconds.
func TestAPIServerAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, controlplane.Options{})
	nodes, daemons := r.join("n1", "n2")
	peer := nodes[1].gateway().Masked().Addr().String()
	r.eventually("the checkpoint with "+peer, func() error {
		out, err := exec.CommandContext(t.Context(), "grep", "-r", "--files-with-matches", "--fixed-strings", peer, nodes[0].dir+"/state").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		return err
	})
	f := r.startFlow(nodes[1], nodes[0])
	r.control.Kill("kube-apiserver")
	daemons[0].kill()
	daemons[0] = nodes[0].launch().ready()
	<-time.After(*apiAway)
	r.connected(nodes...)
	r.control.StartAPIServer()
	back := time.Now()
	third := r.node("n3")
	r.control.AddNode("n3", "10.5.3.0/24")
	third.launch().ready()
	r.eventually("routes to n3", func() error {
		for _, n := range nodes {
			if routes := n.run("ip", "route"); !strings.Contains(routes, third.gateway().Masked().String()) {
				return fmt.Errorf("%s has %s", n.name, routes)
			}
		}
		return nil
	})
	t.Logf("a third node joined %v after the API server was ready", time.Since(back).Round(time.Millisecond))
	if lost, sent := f.lost(); lost > 0 {
		t.Errorf("%d of %d packets are lost", lost, sent)
	}
}
