package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/control"
	"github.com/coreos/flannel/pkg/netnstest"
)

// pingPause is the time between two pings, in seconds. A tunnel keeps 128
// packets to a peer that has yet to learn of a new key; a daemon under the race
// detector, on a machine that runs other tests, takes ten times as long to tell
// and to learn it.
func pingPause() string {
	if raceEnabled {
		return "0.01"
	}
	return "0.001"
}

// restlessPing is a ping every millisecond or so, from one node's container to
// another's.
type restlessPing struct {
	t        *testing.T
	from, to *node
	cmd      *netnstest.Cmd
	log      *logBuffer
}

func startRestlessPing(t *testing.T, from, to *node) *restlessPing {
	t.Helper()
	return startPing(t, from, to, pingPause())
}

// startPing pings with a pause in seconds. Its sequence numbers wrap after 65,536 of
// these.
func startPing(t *testing.T, from, to *node, pause string) *restlessPing {
	t.Helper()
	p := &restlessPing{t: t, from: from, to: to, log: &logBuffer{}}
	p.cmd = from.container.Command(t.Context(), "ping", "-n", "-i", pause, "-W", "10", to.containerAddr().String())
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// answers is the number of answers so far.
func (p *restlessPing) answers() int { return strings.Count(p.log.String(), "bytes from") }

// goesOn waits for some more answers.
func (p *restlessPing) goesOn() {
	p.t.Helper()
	p.goesOnAfter(p.answers())
}

// goesOnAfter waits for some more answers than a number.
func (p *restlessPing) goesOnAfter(answered int) {
	p.t.Helper()
	eventually(p.t, "pings are answered", func() error {
		if n := p.answers(); n < answered+20 {
			return fmt.Errorf("%d answers, then %d", answered, n)
		}
		return nil
	})
}

// end stops it; not one answer may be missing.
func (p *restlessPing) end() {
	p.t.Helper()
	p.goesOn() // the last ones before the signal are allowed to be on their way
	if err := p.cmd.Process.Signal(unix.SIGINT); err != nil {
		p.t.Fatal(err)
	}
	_ = p.cmd.Wait() // its exit code says no more than its output
	last, seen := 0, make(map[int]bool)
	for line := range strings.Lines(p.log.String()) {
		if _, rest, ok := strings.Cut(line, "icmp_seq="); ok {
			var seq int
			if _, err := fmt.Sscanf(rest, "%d", &seq); err != nil {
				p.t.Fatalf("%v in %q", err, line)
			}
			seen[seq], last = true, max(last, seq)
		}
	}
	if len(seen) != last || last < 20 { // sequence numbers begin at 1, and wrap after a minute
		var missing []int
		for seq := 1; seq <= last; seq++ {
			if !seen[seq] {
				missing = append(missing, seq)
			}
		}
		p.t.Errorf("from %s to %s: %d of %d pings were answered, not %v", p.from.Name(), p.to.Name(), len(seen), last, missing)
	}
}

// flannel rekey, three times, with pings both ways all the time.
func TestRekey(t *testing.T) {
	for _, datapath := range wireguards(t) {
		t.Run(datapath, func(t *testing.T) { testRekey(t, datapath) })
	}
}

func testRekey(t *testing.T, datapath string) {
	c := newCluster(t, "3")
	c.use(`{"Type": "wireguard", "Datapath": "` + datapath + `"}`)
	a, b := c.node("a"), c.node("b")
	file := "-subnet-file=" + a.envFile
	a.commandSays(1, "is the daemon running", "rekey", file)
	da, _ := c.joinPair(a, b)
	socket := control.Path(a.envFile)
	eventually(t, "the control socket is there, for its owner alone", func() error {
		info, err := os.Stat(socket)
		if err == nil && info.Mode() != fs.ModeSocket|0o600 {
			err = fmt.Errorf("mode %v", info.Mode())
		}
		return err
	})
	keyFile := filepath.Join(filepath.Dir(a.envFile), "wgkey")
	public := func() string {
		_, v := parseLease(t, a.leaseKey(), c.leases()[a.leaseKey()])
		return v.BackendData.PublicKey
	}
	privateKey := func() string {
		key, err := os.ReadFile(keyFile)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(key))
	}
	there, back := startRestlessPing(t, a, b), startRestlessPing(t, b, a)
	var secrets []string
	for range 3 {
		before, secret := public(), privateKey()
		out, code := a.command("rekey", file)
		if want := fmt.Sprintf("%v: public key %s -> %s, published\n", a.subnet(), before, public()); code != 0 || out != want || public() == before {
			t.Fatalf("code %d, %q, want %q", code, out, want)
		}
		if info, err := os.Stat(keyFile); err != nil || info.Mode().Perm() != 0o400 || privateKey() == secret {
			t.Errorf("key file: %v, %v; or it holds the old key", info, err)
		}
		secrets = append(secrets, secret, privateKey())
		// WireGuard takes a second beginning within 20 ms for a flood, and what
		// waits for the answer to it would be lost with the next key.
		there.goesOn()
		back.goesOn()
	}
	there.end()
	back.end()
	text, code := a.command("rekey", "-json", file)
	var done struct{ Before, After struct{ PublicKey string } }
	if err := json.Unmarshal([]byte(text), &done); err != nil || code != 0 || done.After.PublicKey != public() || done.Before == done.After {
		t.Errorf("code %d, %v in\n%s", code, err, text)
	}
	for _, secret := range secrets {
		if strings.Contains(da.log.String(), secret) || strings.Contains(text, secret) {
			t.Error("a private key is told")
		}
	}

	// A run that was killed leaves its socket, and the next takes its place.
	da.kill()
	da = a.join()
	eventually(t, "the next run takes orders", func() error {
		if out, code := a.command("rekey", file); code != 0 {
			return fmt.Errorf("code %d: %s", code, out)
		}
		return nil
	})
	da.stop()
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left after a stop")
	}
}

func TestRekeyRefuses(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a")
	file := "-subnet-file=" + a.envFile
	a.join()
	eventually(t, "it takes orders", func() error {
		_, err := os.Stat(control.Path(a.envFile))
		return err
	})
	a.commandSays(1, "backend udp has no key to replace; wireguard has", "rekey", file)
	a.commandSays(1, `unexpected argument "now"`, "rekey", file, "now")
}
