package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Wrong input ends the program with exit code 1 and a line that names the
// input. The program does not wait, because time does not fix it.
func TestWrongConfiguration(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a")
	for config, want := range map[string][]string{
		`{"Network": "10.5.0.0/16"`:  {"JSON"},
		`[]`:                         {"object"},
		`{}`:                         {"Network", "missing"},
		`{"Network": "ten"}`:         {"Network", "ten"},
		`{"Network": "10.5.0.0/30"}`: {"Network", "10.5.0.0/30", "too small"},
		`{"Network": "10.5.0.0/16", "SubnetLen": 31}`:                                  {"SubnetLen", "31"},
		`{"Network": "10.5.0.0/16", "SubnetLen": 8}`:                                   {"SubnetLen", "8", "10.5.0.0/16"},
		`{"Network": "10.5.0.0/16", "SubnetMin": "10.4.0.0"}`:                          {"SubnetMin 10.4.0.0 is outside Network 10.5.0.0/16"},
		`{"Network": "10.5.0.0/16", "SubnetMax": "10.5.1.1"}`:                          {"SubnetMax", "10.5.1.1"},
		`{"Network": "10.5.0.0/16", "Backend": {"Type": "pigeon"}}`:                    {"pigeon", "udp"},
		`{"Network": "10.5.0.0/16", "Backend": {"Port": 70000}}`:                       {"Port", "70000"},
		`{"Network": "10.5.0.0/16", "Backend": {"Port": "eighty"}}`:                    {"Port", "eighty"},
		`{"Network": "10.5.0.0/16", "Backend": ["udp"]}`:                               {"Backend"},
		`{"Network": "10.5.0.0/16", "Backend": {"Type": 5}}`:                           {"Backend", "Type"},
		`{"Network": "10.5.0.0/16", "SubnetMin": "10.5.9.0", "SubnetMax": "10.5.8.0"}`: {"SubnetMin", "10.5.9.0", "10.5.8.0"},
	} {
		t.Run(config, func(t *testing.T) {
			c.configure(config)
			refuses(t, launch(t, a.Host, a.args...), want...)
		})
	}
	if leases := c.leases(); len(leases) != 0 {
		t.Errorf("a wrong configuration left leases: %v", leases)
	}
}

func TestWrongFlags(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a")
	garbage := filepath.Join(t.TempDir(), "garbage.pem")
	if err := os.WriteFile(garbage, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"-no-such-flag"}, []string{"-no-such-flag"}},
		{[]string{"stray"}, []string{"stray"}},
		{[]string{"-iface=eth7"}, []string{"eth7", "eth0"}},
		{[]string{"-iface=203.0.113.500"}, []string{"203.0.113.500"}},
		{[]string{"-iface-regex=["}, []string{"iface-regex"}},
		{[]string{"-public-ip=nowhere"}, []string{"public-ip", "nowhere"}},
		{[]string{"-port=70000"}, []string{"port", "70000"}},
		{[]string{"-etcd-api=4"}, []string{"etcd-api", "4"}},
		{[]string{"-etcd-endpoints=gopher://x"}, []string{"gopher"}},
		{[]string{"-etcd-endpoints=https://192.168.77.1:2379", "-etcd-cafile=" + missing}, []string{"etcd-cafile", missing}},
		{[]string{"-etcd-endpoints=https://192.168.77.1:2379", "-etcd-cafile=" + garbage}, []string{"etcd-cafile", garbage}},
		{[]string{"-etcd-endpoints=https://192.168.77.1:2379", "-etcd-certfile=" + garbage}, []string{"etcd-keyfile"}},
		{[]string{"-etcd-cafile=" + garbage}, []string{"http"}}, // plain http with TLS files
		{[]string{"-etcd-password-file=" + missing}, []string{"etcd-password-file", missing}},
		{[]string{"-udp-datapath=warp"}, []string{"warp"}},
		{[]string{"-network=10.5.0.0/30"}, []string{"network", "10.5.0.0/30"}},
		{[]string{"-subnet-file=/proc/no/subnet.env"}, []string{"/proc/no"}},
		{[]string{"-status-addr=203.0.113.5:1"}, []string{"203.0.113.5:1"}},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			refuses(t, launch(t, a.Host, append(slices.Clone(a.args), test.args...)...), test.want...)
			if a.HasLink("flannel0") {
				t.Error("a device stayed behind")
			}
		})
	}
}

// Without its capability the program names it, whatever it changes first.
func TestMissingCapability(t *testing.T) {
	for _, test := range []struct{ backend, flag, what string }{
		{`{"Type": "udp"}`, "", "/dev/net/tun"},
		{`{"Type": "vxlan"}`, "", "add device flannel.1"},
		{`{"Type": "wireguard"}`, "", "add route prohibit"},
		{`{"Type": "alloc"}`, "-ip-masq", "nftables"},
	} {
		t.Run(test.backend, func(t *testing.T) {
			c := newCluster(t, "3")
			c.use(test.backend)
			a := c.node("a")
			args := append([]string{"--bounding-set=-net_admin", programs.flannel}, a.args...)
			if test.flag != "" {
				args = append(args, test.flag)
			}
			refuses(t, launchCommand(t, a.Host, "setpriv", args...), test.what, "CAP_NET_ADMIN")
		})
	}
}

func TestVersionAndHelp(t *testing.T) {
	c := newCluster(t, "3")
	for _, flag := range []string{"-version", "-help", "--help"} {
		out, err := output(t, c.lab.Router(), programs.flannel, flag)
		if err != nil || strings.TrimSpace(out) == "" {
			t.Errorf("%s: %v, says %q", flag, err, out)
		}
	}
}

// refuses waits for exit code 1, and checks that the last line of the log
// contains every want.
func refuses(t *testing.T, d *daemon, want ...string) {
	t.Helper()
	code := d.wait().ExitCode()
	lines := strings.Split(strings.TrimSpace(d.log.String()), "\n")
	last := lines[len(lines)-1]
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, w := range want {
		if !strings.Contains(last, w) {
			t.Errorf("the last line does not name %q:\n%s", w, last)
		}
	}
}
