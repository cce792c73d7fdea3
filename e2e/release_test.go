package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

var peerProgram = flag.String("peer-program", "",
	"TestReleasePeer, TestReleaseReplaced: `file` of another build of flannel, in place of e2e/release")

// buildRelease builds e2e/release, once.
var buildRelease = sync.OnceValue(func() error {
	cmd := exec.CommandContext(context.Background(), "go", "build", "-C", "release", "-buildvcs=false", "-o", programs.release, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the release: %w\n%s", err, out)
	}
	return nil
})

// release returns the program of the current release, or that of -peer-program.
func release(t *testing.T) string {
	t.Helper()
	if *peerProgram != "" {
		return *peerProgram
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the release has the udp backend for amd64 only")
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("the udp backend of the release is written in C:", err)
	}
	if err := buildRelease(); err != nil {
		t.Fatal(err)
	}
	return programs.release
}

// newReleaseCluster makes a cluster for hosts with the release and hosts with this
// program.
func newReleaseCluster(t *testing.T, backend string) *cluster {
	t.Helper()
	netnstest.Require(t)
	release(t) // skips the test, or builds the program before the cluster needs it
	c := newCluster(t, "3")
	var noIPTables bool
	err := c.lab.Host("probe").Do(func() error {
		_, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables")
		if noIPTables = errors.Is(err, fs.ErrNotExist); noIPTables {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// The release refuses iptables if br_netfilter is not loaded.
	c.configure(fmt.Sprintf(`{"Network": %q, "SubnetMax": "10.5.99.0", "EnableNFTables": %v, "Backend": {"Type": %q}}`, network, noIPTables, backend))
	return c
}

// joinRelease starts the release on the node and waits until it is ready.
func (n *node) joinRelease() *daemon {
	n.t.Helper()
	// The release refuses flags that it does not know, and has no state. An earlier build
	// of ours takes the folder from the environment.
	args := slices.DeleteFunc(slices.Clone(n.args), func(arg string) bool { return strings.HasPrefix(arg, "-state-dir=") })
	args = append([]string{"FLANNELD_STATE_DIR=" + n.stateFile(""), release(n.t)}, args...)
	d := launchCommand(n.t, n.Host, "env", append(args, "-ip-masq")...)
	d.ready()
	return d
}

// A host with the current release: packets of all sizes go both ways, and take this
// host's fast path.
func TestReleasePeer(t *testing.T) {
	for _, path := range []string{"kernel", "offload"} {
		t.Run(path, func(t *testing.T) {
			c := newReleaseCluster(t, "udp")
			a, b := c.node("a"), c.node("b")
			a.join("-ip-masq", dataPathFlag+path)
			b.joinRelease()
			a.addContainer()
			b.addContainer()
			c.awaitPair(a, b)
			for _, way := range [][2]*node{{a, b}, {b, a}} {
				from, to := way[0], way[1]
				if err := ping(t, from.container, to.containerAddr(), "-M", "do", "-s", "1444"); err != nil {
					t.Errorf("largest packet from %s: %v", from.Name(), err)
				}
				copyBulk(t, from.container, to.container)
			}
			if path == "kernel" {
				netnstest.RequireConntrackTimeouts(t)
				a.exchangesByFastPath(b.container)
				newEcho(t, a, b).takesFastPath(a)
			}
		})
	}
}

// strays is how many packets of a flow the machine's own queues may drop in a second:
// all tests share net.core.netdev_max_backlog. An outage of 100 ms takes as many.
const strays = int(100 * time.Millisecond / sendEvery)

// Hosts change from the current release to this program one by one, and back, while
// their containers exchange packets. Connections stay. The kernel carries the packets of
// vxlan and host-gw meanwhile, with the same device. With udp there is no tunnel while a
// host has no program.
func TestReleaseReplaced(t *testing.T) {
	for _, backend := range []string{"udp", "vxlan", "host-gw"} {
		t.Run(backend, func(t *testing.T) {
			c := newReleaseCluster(t, backend)
			a, b := c.node("a"), c.node("b")
			daemons := map[*node]*daemon{a: a.joinRelease(), b: b.joinRelease()}
			a.addContainer()
			b.addContainer()
			c.awaitPair(a, b)
			device := a.vtepOf() + b.vtepOf()
			flows := startLoad(t, []*node{a, b}, inet.IPv4)
			stream := startStreamWithin(t, a.container, b.container, 32<<10)
			checkLosses := func(when string, since time.Time) {
				t.Helper()
				until := time.Now()
				for _, f := range flows {
					if err := f.lostMore(strays, since, until); err != nil {
						t.Errorf("%s: %v", when, err)
					}
				}
			}
			for _, step := range []struct {
				node *node
				back bool
			}{{a, false}, {b, false}, {a, true}, {b, true}} {
				n, when := step.node, fmt.Sprintf("%s replaced, back to the release: %v", step.node.Name(), step.back)
				since, subnet := time.Now(), n.subnet()
				daemons[n].stop()
				if step.back {
					if backend == "udp" { // the release does not know the kernel data path
						n.commandSays(0, "", "cleanup", "-subnet-file="+n.envFile)
					}
					daemons[n] = n.joinRelease()
				} else {
					daemons[n] = n.join("-ip-masq")
				}
				for _, f := range flows {
					f.works(t)
				}
				if backend != "udp" {
					checkLosses(when, since)
				}
				settled := time.Now()
				stream.progresses(t)
				checkLosses("after: "+when, settled)
				if n.subnet() != subnet {
					t.Errorf("%s: the subnet is %v, was %v", when, n.subnet(), subnet)
				}
				if now := a.vtepOf() + b.vtepOf(); now != device {
					t.Errorf("%s: the devices are %s, were %s", when, now, device)
				}
			}
		})
	}
}

// vtepOf returns what peers and packets know the VXLAN device of the node by; "" if it
// has none.
func (n *node) vtepOf() string {
	n.t.Helper()
	if !n.HasLink("flannel.1") {
		return ""
	}
	l, err := n.Netlink().LinkByName("flannel.1")
	if err != nil {
		n.t.Fatal(err)
	}
	return fmt.Sprintf("%d %v ", l.Attrs().Index, l.Attrs().HardwareAddr)
}
