package cli

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckPodBridge(t *testing.T) {
	own := netip.MustParsePrefix("10.5.3.0/24")
	for addr, want := range map[string]string{"10.5.3.1/24": verdictOK, "10.5.9.1/24": verdictFail, "10.5.3.1/16": verdictFail, "fe80::1/64": verdictOK} {
		ip, n, err := net.ParseCIDR(addr)
		if err != nil {
			t.Fatal(err)
		}
		n.IP = ip
		if f := judgePodBridge([]net.Addr{n}, own); f.Verdict != want {
			t.Errorf("%s: %+v, want %s", addr, f, want)
		}
	}
}

func TestCheckCNIFiles(t *testing.T) {
	f := &facts{flags: &doctorFlags{store: &storeFlags{}}}
	dir := t.TempDir()
	if got := checkCNIFiles(f, dir); got.Verdict != "" {
		t.Errorf("outside of Kubernetes: %+v", got)
	}
	f.flags.store.flags.Kube.Enabled = true
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := func(verdict, text string) {
		t.Helper()
		if got := checkCNIFiles(f, dir); got.Verdict != verdict || !strings.Contains(got.Found, text) {
			t.Errorf("%+v, want %s with %q", got, verdict, text)
		}
	}
	check(verdictWarn, "no file")
	write("10-flannel.conflist", `{"plugins":[{"type":"flannel"}]}`)
	write("05-notes.txt", "")
	check(verdictOK, "10-flannel.conflist is the first")
	write("05-other.conflist", `{"plugins":[{"type":"bridge"}]}`)
	check(verdictFail, "05-other.conflist comes before 10-flannel.conflist")
}
