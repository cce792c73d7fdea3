package kube

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest/kubeapi"
)

// The bytes are those that other flannels write and read.
func TestAcquireWritesAnnotations(t *testing.T) {
	for name, test := range map[string]struct {
		attrs subnet.Attrs
		want  map[string]string
	}{
		"vxlan": {attrs(), map[string]string{
			"backend-type": "vxlan", "backend-data": `{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`}},
		"host-gw": {subnet.Attrs{PublicIP: attrs().PublicIP, BackendType: "host-gw"}, map[string]string{
			"backend-type": "host-gw", "backend-data": "null"}},
		"udp": {subnet.Attrs{PublicIP: attrs().PublicIP}, map[string]string{
			"backend-type": "", "backend-data": "null"}},
		"wireguard": {subnet.Attrs{PublicIP: attrs().PublicIP, BackendType: "wireguard", BackendData: json.RawMessage(`{ "PublicKey": "k=", "Port": 51820 }`)},
			map[string]string{"backend-type": "wireguard", "backend-data": `{"PublicKey":"k=","Port":51820}`}},
		"own": {subnet.Attrs{PublicIP: attrs().PublicIP, Extras: subnet.Extras{NodeID: "id", DataPath: "kernel"}}, map[string]string{
			"backend-type": "", "backend-data": "null", "extras": `{"NodeID":"id","DataPath":"kernel"}`}},
	} {
		t.Run(name, func(t *testing.T) {
			s := kubeapi.Start(t)
			s.PutNode(self, map[string]string{"example.com/other": "stays"}, "10.5.3.0/24")
			k, _ := open(t, s)
			l, err := holder(t, k).Acquire(t.Context(), test.attrs, subnet.Hints{}, func(error) {})
			if err != nil || l.Subnet != netip.MustParsePrefix("10.5.3.0/24") || l.Attrs.Hostname != self {
				t.Fatalf("Acquire = %v %+v, %v", l, l.Attrs, err)
			}
			want := map[string]string{"example.com/other": "stays",
				"flannel.alpha.coreos.com/kube-subnet-manager": "true", "flannel.alpha.coreos.com/public-ip": "192.0.2.1"}
			for suffix, value := range test.want {
				want["flannel.alpha.coreos.com/"+suffix] = value
			}
			if diff := cmp.Diff(want, s.Annotations(self)); diff != "" {
				t.Errorf("annotations (-want +have):\n%s", diff)
			}
			before := len(s.Requests())
			if _, err := holder(t, k).Acquire(t.Context(), test.attrs, subnet.Hints{}, func(error) {}); err != nil {
				t.Fatal(err)
			}
			if again := s.Requests()[before:]; len(again) != 1 { // nothing to write
				t.Errorf("a second Acquire made the requests %q", again)
			}
			leases, _, err := k.List(t.Context())
			if err != nil || len(leases) != 1 || !leases[0].Attrs.Equal(l.Attrs) {
				t.Errorf("List = %+v, %v; want %+v", leases, err, l)
			}
		})
	}
}

// Each family has its own annotations, and one that is not there has none.
func TestAcquireFamilies(t *testing.T) {
	v6 := netip.MustParseAddr("2001:db8::1")
	for name, test := range map[string]struct {
		config   string
		podCIDRs []string
		attrs    func(*subnet.Attrs)
		key      string
		want     map[string]string
	}{
		"dual": {`{"Network":"10.5.0.0/16","IPv6Network":"fd00:5::/48"}`, []string{"10.5.3.0/24", "fd00:5:0:3::/64"},
			func(a *subnet.Attrs) {
				a.SetFamily(inet.IPv6, v6, json.RawMessage(`{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:45"}`))
			},
			"10.5.3.0-24&fd00:5:0:3::-64", map[string]string{"public-ip": "192.0.2.1", "backend-data": `{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`,
				"public-ipv6": "2001:db8::1", "backend-v6-data": `{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:45"}`}},
		"IPv6 only": {`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48"}`, []string{"fd00:5:0:3::/64"},
			func(a *subnet.Attrs) {
				a.SetFamily(inet.IPv4, netip.Addr{}, nil)
				a.SetFamily(inet.IPv6, v6, nil)
			},
			"0.0.0.0-0&fd00:5:0:3::-64", map[string]string{"public-ipv6": "2001:db8::1", "backend-v6-data": "null"}},
		"one family of two podCIDRs": {netConf1, []string{"fd00:5:0:3::/64", "10.5.3.0/24"}, func(*subnet.Attrs) {},
			"10.5.3.0-24", map[string]string{"public-ip": "192.0.2.1", "backend-data": `{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`}},
	} {
		t.Run(name, func(t *testing.T) {
			s := kubeapi.Start(t)
			stale := map[string]string{}
			for _, suffix := range []string{"public-ip", "public-ipv6", "backend-data", "backend-v6-data"} {
				stale[names.prefix+suffix] = "of an earlier run"
			}
			s.PutNode(self, stale, test.podCIDRs...)
			k, _ := open(t, s)
			c, err := subnet.ParseConfig([]byte(test.config))
			if err != nil {
				t.Fatal(err)
			}
			a := attrs()
			test.attrs(&a)
			l, err := k.Holder(c).Acquire(t.Context(), a, subnet.Hints{}, func(error) {})
			if err != nil || l.Key() != test.key {
				t.Fatalf("Acquire = %v, %v; want %s", l.Key(), err, test.key)
			}
			want := map[string]string{names.prefix + "kube-subnet-manager": "true", names.prefix + "backend-type": "vxlan"}
			for suffix, value := range test.want {
				want[names.prefix+suffix] = value
			}
			if diff := cmp.Diff(want, s.Annotations(self)); diff != "" {
				t.Errorf("annotations (-want +have):\n%s", diff)
			}
			leases, _, err := k.List(t.Context())
			if err != nil || len(leases) != 1 || !leases[0].Attrs.Equal(l.Attrs) {
				t.Errorf("List = %+v, %v; want %+v", leases, err, l)
			}
		})
	}
}

// What comes late only delays a start, and the reason is reported.
func TestAcquireWaits(t *testing.T) {
	s := kubeapi.Start(t)
	k, _ := open(t, s)
	s.Refuse(503)
	reasons := make(chan error, 1000)
	acquired := make(chan subnet.Lease, 1)
	go func() {
		l, err := holder(t, k).Acquire(t.Context(), attrs(), subnet.Hints{}, func(err error) { reasons <- err })
		if err != nil {
			t.Errorf("Acquire: %v", err)
		}
		acquired <- l
	}()
	awaitReason := func(what string) {
		t.Helper()
		eventually(t, what, func() bool {
			err := <-reasons
			return err != nil && strings.Contains(err.Error(), what)
		})
	}
	awaitReason("answers 503")
	s.Refuse(0)
	awaitReason("Node object does not exist")
	s.PutNode(self, nil)
	awaitReason("has no podCIDR")
	s.PutNode(self, nil, "10.5.3.0/24")
	if l := <-acquired; l.Subnet.String() != "10.5.3.0/24" {
		t.Errorf("Acquire = %v", l)
	}
}

// A start while the API server is away ends within the time that the hints give.
func TestAcquireStoreTimeout(t *testing.T) {
	s := kubeapi.Start(t)
	s.Refuse(503)
	l := listen(t)
	l.Close()
	k, _ := openURL(t, "http://"+l.Addr().String())
	_, err := holder(t, k).Acquire(t.Context(), attrs(), subnet.Hints{StoreTimeout: 50 * time.Millisecond}, func(error) {})
	if !errors.Is(err, subnet.ErrStoreTimeout) {
		t.Errorf("Acquire = %v, want %v", err, subnet.ErrStoreTimeout)
	}
}

// The Node may be known by a pod only, which may come late, too.
func TestNodeOfPod(t *testing.T) {
	s := kubeapi.Start(t)
	s.PutNode(self, nil, "10.5.3.0/24")
	k, _ := open(t, s)
	k.config.Self, k.name = Self{Namespace: "kube-flannel", Pod: "flannel-x"}, ""
	acquired := make(chan error, 1)
	go func() {
		_, err := holder(t, k).Acquire(t.Context(), attrs(), subnet.Hints{}, func(error) {})
		acquired <- err
	}()
	eventually(t, "request for the pod", func() bool { return len(s.Requests()) > 0 })
	s.PutPod("kube-flannel", "flannel-x", self)
	if err := <-acquired; err != nil {
		t.Fatal(err)
	}
	if s.Annotations(self)[names.prefix+suffixManaged] != "true" {
		t.Errorf("annotations are %v", s.Annotations(self))
	}
}

// The administrator's address is published in place of ours, and ours again when
// the annotation is gone.
func TestOverwrite(t *testing.T) {
	s := kubeapi.Start(t)
	overwrite := map[string]string{names.prefix + suffixOverwrite[inet.IPv4]: "198.51.100.7"}
	s.PutNode(self, overwrite, "10.5.3.0/24")
	k, _ := open(t, s)
	l := acquire(t, holder(t, k))
	if l.Attrs.PublicIP.String() != "198.51.100.7" || s.Annotations(self)[names.prefix+suffixPublicIP[inet.IPv4]] != "198.51.100.7" {
		t.Fatalf("Acquire = %+v; annotations %v", l, s.Annotations(self))
	}
	if err := holder(t, k).Check(t.Context(), l); err != nil {
		t.Errorf("Check: %v", err)
	}
	without := s.Annotations(self)
	delete(without, names.prefix+suffixOverwrite[inet.IPv4])
	s.PutNode(self, without, "10.5.3.0/24")
	if err := holder(t, k).Check(t.Context(), l); !errors.Is(err, subnet.ErrConflict) {
		t.Errorf("Check after the annotation is gone: %v", err)
	}
	l, err := holder(t, k).Renew(t.Context(), l, l.Attrs, nil)
	if err != nil || l.Attrs.PublicIP != attrs().PublicIP || s.Annotations(self)[names.prefix+suffixPublicIP[inet.IPv4]] != "192.0.2.1" {
		t.Errorf("Renew = %+v, %v; annotations %v", l, err, s.Annotations(self))
	}
}

func TestRenewRestores(t *testing.T) {
	s := kubeapi.Start(t)
	s.PutNode(self, nil, "10.5.3.0/24")
	k, _ := open(t, s)
	l := acquire(t, holder(t, k))
	want := s.Annotations(self)

	s.PutNode(self, nil, "10.5.3.0/24") // another controller has removed them
	if err := holder(t, k).Check(t.Context(), l); !errors.Is(err, subnet.ErrConflict) {
		t.Errorf("Check: %v", err)
	}
	if _, err := holder(t, k).Renew(t.Context(), l, l.Attrs, nil); err != nil || !maps.Equal(want, s.Annotations(self)) {
		t.Errorf("Renew: %v; annotations %v, want %v", err, s.Annotations(self), want)
	}

	s.DeleteNode(self)
	if _, err := holder(t, k).Renew(t.Context(), l, l.Attrs, nil); !errors.Is(err, errNoNode) || errors.Is(err, subnet.ErrLost) {
		t.Errorf("Renew without the Node: %v", err)
	}
	s.PutNode(self, nil)
	if _, err := holder(t, k).Renew(t.Context(), l, l.Attrs, nil); !errors.Is(err, errUnassigned) || errors.Is(err, subnet.ErrLost) {
		t.Errorf("Renew without a podCIDR: %v", err)
	}
	s.PutNode(self, nil, "10.5.3.0/24")
	if _, err := holder(t, k).Renew(t.Context(), l, l.Attrs, nil); err != nil || !maps.Equal(want, s.Annotations(self)) {
		t.Errorf("Renew with a new Node: %v; annotations %v", err, s.Annotations(self))
	}

	s.DeleteNode(self)
	s.PutNode(self, nil, "10.5.9.0/24")
	if _, err := holder(t, k).Renew(t.Context(), l, l.Attrs, nil); !errors.Is(err, subnet.ErrLost) {
		t.Errorf("Renew with another podCIDR: %v", err)
	}
}

// A write that was meant for the Node of before does not change the one after.
func TestWriteToRecreatedNode(t *testing.T) {
	s := kubeapi.Start(t)
	s.PutNode(self, nil, "10.5.3.0/24")
	k, _ := open(t, s)
	n, err := k.readOwn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l, err := n.key()
	if err != nil {
		t.Fatal(err)
	}
	s.DeleteNode(self)
	s.PutNode(self, nil, "10.5.9.0/24")
	if _, err := holder(t, k).publishAt(t.Context(), n, l, attrs()); err == nil || len(s.Annotations(self)) > 0 {
		t.Errorf("publishAt: %v; annotations %v", err, s.Annotations(self))
	}
}

// Check reads our Node from the watch.
func TestCheckCostsNothing(t *testing.T) {
	s := kubeapi.Start(t)
	s.PutNode(self, nil, "10.5.3.0/24")
	k, requests := open(t, s)
	l := acquire(t, holder(t, k))
	_, at, err := k.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	watching, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() {
		ended <- k.Watch(ctx, at, func(subnet.Rev, []subnet.Event) { watching <- struct{}{} })
	}()
	<-watching
	before := requests.Load()
	if err := holder(t, k).Check(t.Context(), l); err != nil || requests.Load() != before {
		t.Errorf("Check: %v, and %d requests", err, requests.Load()-before)
	}
	s.PutNode(self, nil, "10.5.3.0/24")
	<-watching
	if err := holder(t, k).Check(t.Context(), l); !errors.Is(err, subnet.ErrConflict) || requests.Load() != before {
		t.Errorf("Check after a change: %v, and %d requests", err, requests.Load()-before)
	}
	cancel()
	<-ended
}

func TestPrevious(t *testing.T) {
	s := kubeapi.Start(t)
	l := subnet.Lease{Subnet: netip.MustParsePrefix("10.5.3.0/24"), Attrs: attrs()}
	s.PutNode(self, published(t, l), l.Subnet.String())
	k, _ := open(t, s)
	configure(t, k, netConf1)
	if p := k.Previous(); !p.Equal(subnet.Attrs{}) {
		t.Errorf("Previous before a call = %+v", p)
	}
	if _, err := k.Config(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p := k.Previous(); p.PublicIP != l.Attrs.PublicIP || string(p.BackendData) != string(l.Attrs.BackendData) {
		t.Errorf("Previous = %+v, want %+v", p, l.Attrs)
	}
}
