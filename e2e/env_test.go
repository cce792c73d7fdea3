package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestSubnetEnv(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a")
	d := a.launch("-ip-masq")
	d.ready()
	// READY=1 is the promise that the file is there; no waiting here.
	text, err := os.ReadFile(a.envFile)
	if err != nil {
		t.Fatal(err)
	}
	subnet := a.gateway()
	if subnet.Addr() != subnet.Masked().Addr().Next() {
		t.Errorf("FLANNEL_SUBNET=%v is not the subnet's first usable address", subnet)
	}
	want := fmt.Sprintf("FLANNEL_NETWORK=%v\nFLANNEL_SUBNET=%v\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n", network, subnet)
	if string(text) != want {
		t.Errorf("subnet.env is\n%s\nwant\n%s", text, want)
	}
	info, err := os.Stat(a.envFile)
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v, %v; want 0644", info.Mode(), err)
	}

	script := fmt.Sprintf(`set -eu; . %s; echo "$FLANNEL_NETWORK $FLANNEL_SUBNET $FLANNEL_MTU $FLANNEL_IPMASQ"`, a.envFile)
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script).CombinedOutput()
	if want := fmt.Sprintf("%v %v 1472 true\n", network, subnet); err != nil || string(out) != want {
		t.Errorf("sh reads %q, %v; want %q", out, err, want)
	}
	values := environmentFile(string(text))
	if len(values) != 4 || values["FLANNEL_SUBNET"] != subnet.String() || values["FLANNEL_MTU"] != "1472" {
		t.Errorf("systemd reads %v", values)
	}
}

// environmentFile reads text by the rules of systemd.exec(5) for
// EnvironmentFile=: lines of assignments; empty lines, lines without "=", and
// lines that begin with ; or # are ignored; a backslash at the end joins lines;
// unquoted values lose white space at their ends, and a backslash there keeps
// the next character; values may be in single or double quotes.
func environmentFile(text string) map[string]string {
	values := make(map[string]string)
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", "")) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		values[strings.TrimSpace(key)] = unquote(strings.TrimSpace(value))
	}
	return values
}

func unquote(s string) string {
	if len(s) >= 2 && s[0] == s[len(s)-1] && (s[0] == '"' || s[0] == '\'') {
		return s[1 : len(s)-1]
	}
	var plain strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		plain.WriteByte(s[i])
	}
	return plain.String()
}
