package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcdv3"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

func TestConfig(t *testing.T) {
	etcd := etcdserver.Start(t, etcdserver.Options{})
	run := func(args ...string) (int, string) {
		t.Helper()
		code, out, errs := call(t, append(args, "-etcd-endpoints="+etcd.URL(), "-etcd-api=3")...)
		return code, out + errs
	}
	expect := func(wantCode int, want string, args ...string) {
		t.Helper()
		if code, out := run(args...); code != wantCode || !strings.Contains(out, want) {
			t.Errorf("%q: code %d, want %d and %q in\n%s", args, code, wantCode, want, out)
		}
	}
	expect(exitFailed, "no network configuration", "config", "get")
	expect(exitFailed, "Network", "config", "set", "10.5.0.0/40")
	expect(exitOK, "the store had no configuration", "config", "set", "10.5.0.0/16")
	expect(exitOK, "has this configuration already", "config", "set", "10.5.0.0/16")
	expect(exitOK, `"changed": false`, "config", "set", "-json", "10.5.0.0/16")
	expect(exitOK, `{"Network": "10.5.0.0/16"}`, "config", "get")
	expect(exitOK, `"SubnetLen": 24`, "config", "get", "-json")
	expect(exitOK, "SubnetMax: 10.5.255.0 -> 10.5.9.0", "config", "set", `{"Network":"10.5.0.0/16","SubnetMax":"10.5.9.0"}`)
	expect(exitOK, "from 10.5.1.0 to 10.5.9.0", "config", "check")
	expect(exitOK, `"SubnetMax: 10.5.9.0 -> 10.5.99.0"`, "config", "set", "-json", `{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0"}`)
	expect(exitFailed, "SubnetLen", "config", "check", `{"Network":"10.5.0.0/16","SubnetLen":8}`)
	expect(exitFailed, "see flannel help config", "config")

	expect(exitOK, `Backend: {"Type":"udp"} -> {"PSK":"…","Type":"wireguard"}`, "config", "set", `{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard","PSK":"hush"}}`)
	expect(exitOK, `-> {"Type":"udp"}`, "config", "set", `{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0"}`)

	r, err := etcdv3.New(etcd.ClientConfig("/coreos.com/network"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l, err := subnet.ParseLease("10.5.2.0-24", []byte(`{"PublicIP":"192.0.2.2","BackendType":"vxlan","BackendData":{"VNI":1}}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(t.Context(), l, time.Hour); err != nil {
		t.Fatal(err)
	}
	expect(exitOK, "10.5.2.0/24   192.0.2.2   -      expires in ", "leases")
	expect(exitOK, `"expires_at"`, "leases", "-json")
	expect(exitFailed, "no lease for 10.5.3.0/24", "reserve", "10.5.3.0/24")
	expect(exitFailed, "held by 192.0.2.2", "reserve", "10.5.2.0/24", "192.0.2.9")
	expect(exitFailed, "is not a /24 of the network", "reserve", "10.6.2.0/24", "192.0.2.9")
	expect(exitFailed, "is a lease, not a reservation", "release", "10.5.2.0/24")
	expect(exitOK, "is reserved for 192.0.2.2", "reserve", "10.5.2.0/24")
	expect(exitOK, "reserved for 192.0.2.3", "reserve", "10.5.3.0/24", "192.0.2.3")
	expect(exitOK, "reserved, does not expire   vxlan     {\"VNI\":1}", "leases")
	expect(exitOK, "released 10.5.3.0/24", "release", "10.5.3.0/24")
	expect(exitOK, `"changed": true`, "reserve", "-json", "10.5.3.0/24", "192.0.2.3")
	expect(exitOK, `"changed": false`, "reserve", "-json", "10.5.3.0/24", "192.0.2.3")
	expect(exitOK, "is reserved for 192.0.2.3 already", "reserve", "10.5.3.0/24", "192.0.2.3")
	expect(exitOK, `"public_ip": "192.0.2.3"`, "release", "-json", "10.5.3.0/24")
	expect(exitOK, "released 10.5.2.0/24", "release", "10.5.2.0/24")
	expect(exitFailed, "no lease for 10.5.2.0/24", "release", "10.5.2.0/24")

	// Without a flag of etcd, the running daemon's store is used.
	daemon := daemonOf(t, status.Snapshot{Store: status.Store{API: "3", Prefix: "/coreos.com/network", Endpoints: []string{etcd.URL()}}})
	if code, out, errs := call(t, "config", "get", "-status-addr="+daemon); code != exitOK || !strings.Contains(out, "10.5.99.0") {
		t.Errorf("with the daemon's endpoints: code %d\n%s%s", code, out, errs)
	}
	if code, out, errs := call(t, "config", "get", "-timeout=1s", "-etcd-prefix=/other", "-status-addr="+daemon); code == exitOK {
		t.Errorf("with a flag of etcd: code %d\n%s%s", code, out, errs)
	}

	etcd.Stop()
	expect(exitFailed, "flannel leases: ", "leases", "-timeout=1s")
	expect(exitFailed, "leaves no time", "leases", "-timeout=-1s")
}
