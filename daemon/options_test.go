package daemon

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
)

func parse(t *testing.T, args ...string) *Options {
	t.Helper()
	o, err := ParseOptions(args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOptionsDefaults(t *testing.T) {
	o := parse(t)
	if want := []string{"http://127.0.0.1:4001", "http://127.0.0.1:2379"}; !slices.Equal(o.store.Endpoints, want) {
		t.Errorf("endpoints %q", o.store.Endpoints)
	}
	if o.leaseTTL != 24*time.Hour || o.renewal.RenewMargin != time.Hour || o.store.Prefix != "/coreos.com/network" ||
		o.subnetFile != "/run/flannel/subnet.env" || o.stateDir != "/var/lib/flannel" || o.statusAddr != "127.0.0.1:8286" ||
		o.store.API != "auto" || o.dataPath != "auto" || o.healthzIP != "0.0.0.0" || o.healthzPort != 0 || o.ipMasq {
		t.Errorf("%+v", o)
	}
}

func TestOptionsLists(t *testing.T) {
	o := parse(t, "--etcd-endpoint=http://a:1, http://b:2,", "-iface=eth1", "-iface", "eth0", "-iface-regex=^en", "-iface-regex=^eth")
	if !slices.Equal(o.store.Endpoints, []string{"http://a:1", "http://b:2"}) {
		t.Errorf("endpoints %q", o.store.Endpoints)
	}
	if !slices.Equal(o.iface.Ifaces, []string{"eth1", "eth0"}) || !slices.Equal(o.iface.Regexes, []string{"^en", "^eth"}) {
		t.Errorf("iface %+v", o.iface)
	}
}

func TestOptionsEnvironment(t *testing.T) {
	t.Setenv("FLANNELD_ETCD_ENDPOINTS", "http://env:1")
	t.Setenv("FLANNELD_ETCD_PREFIX", "/env")
	t.Setenv("FLANNELD_IP_MASQ", "true")
	t.Setenv("FLANNELD_IFACE", "")
	o := parse(t, "-etcd-prefix=/line")
	if o.store.Prefix != "/line" || !slices.Equal(o.store.Endpoints, []string{"http://env:1"}) || !o.ipMasq || o.iface.Ifaces != nil {
		t.Errorf("%+v", o)
	}
	// The alias on the command line wins over its twin in the environment.
	if o := parse(t, "-etcd-endpoint=http://line:1"); !slices.Equal(o.store.Endpoints, []string{"http://line:1"}) {
		t.Errorf("endpoints %q", o.store.Endpoints)
	}
}

func TestOptionsRenewMarginFollowsShortTTL(t *testing.T) {
	if o := parse(t, "-subnet-lease-ttl=10m"); o.renewal.RenewMargin != 5*time.Minute {
		t.Errorf("margin %v", o.renewal.RenewMargin)
	}
}

func TestOptionsPasswordFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("pass word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := parse(t, "-etcd-username=u", "-etcd-password-file="+file); o.store.Password != "pass word" {
		t.Errorf("password %q", o.store.Password)
	}
}

func TestOptionsNetwork(t *testing.T) {
	if o := parse(t, "-network=10.5.0.0/16"); string(o.networkJSON) != `{"Network": "10.5.0.0/16"}` {
		t.Errorf("publish %s", o.networkJSON)
	}
	whole := ` {"Network": "10.5.0.0/16", "Backend": {"Type": "alloc"}}`
	if o := parse(t, "-network="+whole); string(o.networkJSON) != whole {
		t.Errorf("publish %s", o.networkJSON)
	}
}

func TestOptionsHealthz(t *testing.T) {
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"-healthz-port=8286"}, "-healthz-port 8286 on 0.0.0.0 is taken by -status-addr 127.0.0.1:8286"},
		{[]string{"-healthz-port=8286", "-healthz-ip=127.0.0.1"}, "is taken by"},
		{[]string{"-healthz-port=9000", "-status-addr=:9000", "-healthz-ip=127.0.0.1"}, "is taken by"},
		{[]string{"-healthz-port=9000", "-status-addr=0.0.0.0:9000", "-healthz-ip=192.0.2.1"}, "is taken by"},
		{[]string{"-healthz-port=8286", "-healthz-ip=192.0.2.1"}, ""},
		{[]string{"-healthz-port=8286", "-status-addr="}, ""},
		{[]string{"-healthz-port=10248", "-healthz-ip=::1"}, ""},
		{[]string{"-healthz-port=10248", "-healthz-ip=localhost"}, `-healthz-ip "localhost" is not an IP address: give one of this host's`},
		{[]string{"-healthz-ip=127.0.0.1:10248"}, `-healthz-ip "127.0.0.1:10248" is not an IP address`},
		{[]string{"-healthz-ip="}, `-healthz-ip "" is not an IP address`},
		{[]string{"-healthz-port=10248"}, ""},
	} {
		_, err := ParseOptions(tt.args, io.Discard)
		if got := fmt.Sprint(err); (err != nil) != (tt.says != "") || !strings.Contains(got, tt.says) && tt.says != "" {
			t.Errorf("%q: %v, want %q", tt.args, err, tt.says)
		}
	}
}

// Probes of offloads are on unless they are turned off, and for backends that carry
// packets.
func TestOptionsOffloads(t *testing.T) {
	for _, tt := range []struct {
		args    []string
		backend string
		want    bool
	}{{nil, "udp", true}, {nil, "alloc", false}, {[]string{"-offload-probe-interval=0"}, "udp", false}} {
		if got := parse(t, tt.args...).probesOffloads(&subnet.Config{BackendType: tt.backend}); got != tt.want {
			t.Errorf("%q with %s: %t, want %t", tt.args, tt.backend, got, tt.want)
		}
	}
	for _, tt := range []struct{ args, want string }{
		{"-offload-probe-interval=99ms", "shorter than 100ms"},
		{"-offload-probe-port=0", "not in 1 to 65534"},
		{"-offload-probe-port=65535", "UDP also has the next port"},
		{"-offload-repair -offload-probe-interval=0", "drop one"},
	} {
		if _, err := ParseOptions(strings.Fields(tt.args), io.Discard); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.args, err, tt.want)
		}
	}
}
