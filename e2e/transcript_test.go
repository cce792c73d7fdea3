package e2e

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

// transcriptVariable names a file to write the transcript to, such as
// docs/transcript.md. If it is empty, the test compares the commands with that file.
const transcriptVariable = "FLANNEL_TRANSCRIPT"

const transcriptPath = "../docs/transcript.md"

// transcript collects the commands of an operator and their output.
type transcript struct {
	t        *testing.T
	text     strings.Builder
	commands []string
}

func (tr *transcript) note(format string, args ...any) { fmt.Fprintf(&tr.text, format, args...) }

// replace writes the folder of a real host for a folder of the test.
func (tr *transcript) replace(folder, by string) {
	text := strings.ReplaceAll(tr.text.String(), folder, by)
	tr.text.Reset()
	tr.text.WriteString(text)
}

// record adds a command and its output. If there are words, it adds only lines
// with one of them.
func (tr *transcript) record(host, command, out string, words ...string) {
	tr.commands = append(tr.commands, host+"# "+command)
	tr.note("%s# %s\n", host, command)
	for line := range strings.Lines(out) {
		if len(words) == 0 || slices.ContainsFunc(words, func(w string) bool { return strings.Contains(line, w) }) {
			tr.note("%s\n", strings.TrimRight(line, " \n"))
		}
	}
	tr.note("\n")
}

// flannel runs a command of the program and records it.
func (tr *transcript) flannel(host string, n *node, args ...string) string {
	tr.t.Helper()
	out, _ := n.command(args...)
	tr.record(host, "flannel "+strings.Join(args, " "), out)
	return out
}

// shell runs a line of shell on a host and records it.
func (tr *transcript) shell(host string, n *node, line string) string {
	tr.t.Helper()
	out, err := output(tr.t, n.Host, "sh", "-c", line)
	if err != nil {
		tr.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	tr.record(host, line, out)
	return out
}

// Two fresh hosts run the quick start. Status, a cut link and its repair follow.
// After cleanup the kernel is as before. docs/transcript.md has the same commands;
// FLANNEL_TRANSCRIPT=docs/transcript.md writes it.
func TestTranscript(t *testing.T) {
	netnstest.Require(t)
	t.Parallel()
	lab := netnstest.New(t)
	tr := &transcript{t: t}
	a, b := newNode(t, lab.Host("a"), ""), newNode(t, lab.Host("b"), "")
	url := fmt.Sprintf("%v:2379", a.Addr().Addr())
	start := []string{"-etcd-embed", "-etcd-embed-listen=" + url, "-network=10.5.0.0/16", "-ip-masq"}
	a.args = append(a.args, start...)
	join := []string{"-etcd-endpoints=http://" + url, "-ip-masq"}
	b.args = append(b.args, join...)
	for _, n := range []*node{a, b} {
		n.Sysctl("net.ipv4.ip_forward", "1")
	}
	before := kernelAndPrograms(a)

	tr.note("# From a fresh host to a clean one\n\nThis is the output of two hosts from the quick start to `flannel cleanup`, with a link cut in between.\n" +
		"`TestTranscript` runs all of it in two network namespaces, and compares the commands here with its own.\n\n## Quick start\n\n```\n")
	da := a.join()
	da.says("ready subnet=") // READY=1 may come first
	tr.record("host1", "flannel "+strings.Join(start, " "), messages(da.log.String()), "chose", "lease", "carry", "ready ")
	db := b.join()
	db.says("ready subnet=")
	tr.record("host2", "flannel "+strings.Join(join, " "), messages(db.log.String()), "ready ")
	eventually(t, "host1 has an answer of host2, and the usable MTU", func() error {
		if out, _ := a.command("peers"); !strings.Contains(out, "answers") || !strings.Contains(out, fmt.Sprint(a.mtu())) {
			return errors.New(out)
		}
		return nil
	})
	tr.note("```\n\n## Status\n\n```\n")
	tr.flannel("host1", a, "status")
	tr.flannel("host1", a, "peers")
	tr.shell("host1", a, "curl -s http://127.0.0.1:8286/readyz")
	if page := tr.shell("host1", a, "curl -s http://127.0.0.1:8286/ | grep -o '<title>[^<]*'"); !strings.Contains(page, "<title>flannel") {
		t.Errorf("the page is %q", page)
	}
	tr.note("```\n\nThis is the page on a desktop. `FLANNEL_SCREENSHOTS=/tmp go test ./pkg/status -run TestPageInBrowser` also draws it at\n360 pixels, in dark mode, with 1,000 peers, and without a daemon.\n\n![The status page](page.png)\n\n## A peer's link is cut\n\n```\n")

	cut := time.Now()
	tr.shell("host2", b, "ip link set eth0 down")
	eventually(t, "host1 reports that host2 is silent", func() error {
		if out, _ := output(t, a.Host, "curl", "-s", statusURL+"/readyz"); !strings.Contains(out, "1 of 1 peers do not answer") {
			return errors.New(out)
		}
		return nil
	})
	tr.note("```\n\nAfter %.0f seconds:\n\n```\n", time.Since(cut).Seconds())
	tr.shell("host1", a, "curl -s http://127.0.0.1:8286/readyz")
	if out := tr.flannel("host1", a, "status"); !strings.Contains(out, "silent") {
		t.Errorf("status does not report the silent peer:\n%s", out)
	}
	tr.flannel("host1", a, "peers")
	metrics := tr.shell("host1", a, `curl -s http://127.0.0.1:8286/metrics | grep -E '^flannel_(ready|store_reachable|peer_probe_)'`)
	for _, want := range []string{"flannel_ready 1", `flannel_store_reachable{api="3"} 1`, fmt.Sprintf(`flannel_peer_probe_answered{subnet="%v"} 0`, b.subnet())} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %q in\n%s", want, metrics)
		}
	}
	eventually(t, "the events have it", func() error {
		if out := a.statusText(); !strings.Contains(out[strings.Index(out, `"events"`):], "answer through the overlay") {
			return errors.New(out)
		}
		return nil
	})
	tr.shell("host1", a, `curl -s http://127.0.0.1:8286/api/v1/status | grep -m3 '"text"'`)
	out, _ := a.command("doctor", "-etcd-endpoints=http://"+url)
	tr.record("host1", "flannel doctor | grep -v ^ok", out, "warn", "fail", "fix:")
	tr.note("```\n\nThe other host reports that it is not ready:\n\n```\n")
	b.readiness(503, "interface eth0 is down")
	tr.shell("host2", b, "curl -s http://127.0.0.1:8286/readyz | head -1")

	tr.note("```\n\n## It heals\n\n```\n")
	healed := time.Now()
	tr.shell("host2", b, "ip link set eth0 up && ip route replace default via "+lab.Router().Addr().Addr().String())
	eventually(t, "host1 has answers of host2 again", func() error { // the state also reports the loss of the last 20 pings
		if out, _ := a.command("peers"); strings.Contains(out, "silent") {
			return errors.New(out)
		}
		return nil
	})
	tr.note("```\n\nAfter %.0f seconds:\n\n```\n", time.Since(healed).Seconds())
	a.readiness(200, "ok")
	tr.shell("host1", a, "curl -s http://127.0.0.1:8286/readyz")
	tr.flannel("host1", a, "peers")

	tr.note("```\n\n## Nothing is left\n\nCtrl-C ends both daemons. `before` has the output of these commands before the first start.\n\n```\n")
	db.stop()
	da.stop()
	out, code := a.command("cleanup", "-subnet-file="+a.envFile)
	if code != 0 {
		t.Errorf("cleanup: code %d\n%s", code, out)
	}
	tr.record("host1", "flannel cleanup", out, "removed ")
	after := kernelAndPrograms(a)
	tr.record("host1", "(ip -4 addr; ip -4 route show table all; ip rule; nft list ruleset; bpftool net show; ls /sys/fs/bpf) | diff before - && echo no difference", "no difference\n")
	if after != before {
		t.Errorf("after cleanup\n%s\nbefore the first start\n%s", after, before)
	}
	tr.note("```\n")
	for _, n := range []*node{a, b} {
		tr.replace(n.envFile, "/run/flannel/subnet.env")
		tr.replace(n.stateFile(""), "/var/lib/flannel")
	}
	tr.compare()
}

// compare compares the document's commands with the recorded ones, or writes the document.
func (tr *transcript) compare() {
	tr.t.Helper()
	// A block does not end with an empty line.
	text := strings.TrimSpace(strings.ReplaceAll(tr.text.String()+"\n", "\n\n```\n\n", "\n```\n\n")) + "\n"
	if path := os.Getenv(transcriptVariable); path != "" {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			tr.t.Error(err)
		}
		return
	}
	document, err := os.ReadFile(transcriptPath)
	if err != nil {
		tr.t.Fatal(err)
	}
	var documented []string
	for line := range strings.Lines(string(document)) {
		if strings.HasPrefix(line, "host1# ") || strings.HasPrefix(line, "host2# ") {
			documented = append(documented, strings.TrimSpace(line))
		}
	}
	if !slices.Equal(documented, tr.commands) {
		tr.t.Errorf("%s has the commands\n%s\nthe test ran\n%s", transcriptPath, strings.Join(documented, "\n"), strings.Join(tr.commands, "\n"))
	}
}

// kernelAndPrograms returns the state that flannel changes on a host, with programs and pins.
func kernelAndPrograms(n *node) string {
	n.t.Helper()
	out, err := output(n.t, n.Host, "bpftool", "net", "show")
	if err != nil {
		n.t.Fatalf("bpftool: %v\n%s", err, out)
	}
	return n.kernelDetails() + out + strings.Join(pinsOf(n.t, n), "\n")
}

// messages returns the lines of the log without their heads.
func messages(log string) string {
	var all strings.Builder
	for line := range strings.Lines(log) {
		if _, text, ok := strings.Cut(line, "] "); ok {
			all.WriteString(text)
		}
	}
	return all.String()
}
