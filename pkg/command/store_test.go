package command

import (
	"strings"
	"testing"
	"time"

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
	expect(ExitFailed, "no network configuration", "config", "get")
	expect(ExitFailed, "Network", "config", "set", "10.5.0.0/40")
	expect(ExitOK, "has this configuration", "config", "set", "10.5.0.0/16")
	expect(ExitOK, `"changed": false`, "config", "set", "-json", "10.5.0.0/16")
	expect(ExitOK, `{"Network": "10.5.0.0/16"}`, "config", "get")
	expect(ExitOK, `"SubnetLen": 24`, "config", "get", "-json")
	expect(ExitOK, "SubnetMax: 10.5.255.0 -> 10.5.9.0", "config", "set", `{"Network":"10.5.0.0/16","SubnetMax":"10.5.9.0"}`)
	expect(ExitOK, "from 10.5.1.0 to 10.5.9.0", "config", "check")
	expect(ExitOK, `"SubnetMax: 10.5.9.0 -> 10.5.99.0"`, "config", "set", "-json", `{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0"}`)
	expect(ExitFailed, "SubnetLen", "config", "check", `{"Network":"10.5.0.0/16","SubnetLen":8}`)
	expect(ExitFailed, "see flannel help config", "config")

	expect(ExitOK, `Backend: {"Type":"udp"} -> {"PSK":"…","Type":"wireguard"}`, "config", "set", `{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard","PSK":"hush"}}`)
	expect(ExitOK, `-> {"Type":"udp"}`, "config", "set", `{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0"}`)

	r, err := etcdv3.New(etcd.StoreConfig("/coreos.com/network"))
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
	expect(ExitOK, "10.5.2.0/24   192.0.2.2   -      expires in ", "leases")
	expect(ExitOK, `"expires_at"`, "leases", "-json")
	expect(ExitFailed, "nobody has 10.5.3.0/24", "reserve", "10.5.3.0/24")
	expect(ExitFailed, "held by 192.0.2.2", "reserve", "10.5.2.0/24", "192.0.2.9")
	expect(ExitFailed, "is not a /24 of the network", "reserve", "10.6.2.0/24", "192.0.2.9")
	expect(ExitFailed, "is a lease and no reservation", "release", "10.5.2.0/24")
	expect(ExitOK, "is reserved for 192.0.2.2", "reserve", "10.5.2.0/24")
	expect(ExitOK, "reserved for 192.0.2.3", "reserve", "10.5.3.0/24", "192.0.2.3")
	expect(ExitOK, "reserved, without an end   vxlan     {\"VNI\":1}", "leases")
	expect(ExitOK, "is released", "release", "10.5.3.0/24")
	expect(ExitOK, `"changed": true`, "reserve", "-json", "10.5.3.0/24", "192.0.2.3")
	expect(ExitOK, `"changed": false`, "reserve", "-json", "10.5.3.0/24", "192.0.2.3")
	expect(ExitOK, "is reserved for 192.0.2.3 already", "reserve", "10.5.3.0/24", "192.0.2.3")
	expect(ExitOK, `"public_ip": "192.0.2.3"`, "release", "-json", "10.5.3.0/24")
	expect(ExitOK, "is released", "release", "10.5.2.0/24")
	expect(ExitFailed, "nobody has 10.5.2.0/24", "release", "10.5.2.0/24")

	etcd.Stop()
	expect(ExitFailed, "flannel leases: ", "leases", "-timeout=1s")
	expect(ExitFailed, "leaves no time", "leases", "-timeout=-1s")
}
