package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The alert rules parse, come when they should and only then.
func TestAlertRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool; install Debian's package prometheus, or run ./test as root")
	}
	for _, args := range [][]string{
		{"check", "rules", "flannel.rules.yml"},
		{"test", "rules", "flannel.rules.test.yml"},
	} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = "../contrib/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

var metricName = regexp.MustCompile(`\bflannel_[a-z_]+`)

// The metrics of the dashboard and of the alert rules exist. A renamed metric
// would make them silent.
func TestDashboardAndAlertsNameWhatExists(t *testing.T) {
	c := newCluster(t, "3")
	a, _, _, _ := c.pair()
	var known map[string]bool
	eventually(t, "the peer is probed", func() error {
		text := a.metrics()
		// There is no fault here; TestOffloadFault reads the metric of one.
		known = map[string]bool{"flannel_peer_offload_fault": true}
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") {
				known[metricName.FindString(line)] = true
			}
		}
		if !known["flannel_peer_probe_mtu_bytes"] {
			return errors.New("its MTU is not known yet")
		}
		return nil
	})
	if promtool, err := exec.LookPath("promtool"); err == nil { // TestAlertRules skips without it
		lint := exec.CommandContext(t.Context(), promtool, "check", "metrics")
		lint.Stdin = strings.NewReader(a.metrics())
		if out, err := lint.CombinedOutput(); err != nil {
			t.Errorf("promtool check metrics: %v\n%s", err, out)
		}
	}
	dashboard := "../contrib/grafana/flannel.json"
	for _, file := range []string{dashboard, "../contrib/prometheus/flannel.rules.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(file) == ".json" && !json.Valid(text) {
			t.Errorf("%s is not JSON", file)
		}
		names := metricName.FindAllString(string(text), -1)
		if len(names) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range names {
			if !known[name] {
				t.Errorf("%s looks at %s, which the daemon does not have", file, name)
			}
		}
	}
}

// Prometheus parses each query of the dashboard.
func TestDashboardQueries(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool; install Debian's package prometheus, or run ./test as root")
	}
	text, err := os.ReadFile("../contrib/grafana/flannel.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	// Grafana replaces its variables; "promtool check rules" checks the result.
	variables := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".+")
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			rules = append(rules, rule{"a:b", variables.Replace(target.Expr)})
		}
	}
	if len(rules) == 0 {
		t.Fatal("the dashboard has no queries")
	}
	group := map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}}
	asJSON, err := json.Marshal(group) // which is YAML
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, asJSON, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", "--lint=none", file).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}
