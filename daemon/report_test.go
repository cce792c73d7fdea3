package daemon

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/subnet/store"
)

// At each step of a start, the report names what is missing.
func TestReportNamesWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		m := r.join()
		whole := r.state.get()
		whole.network, whole.applied, whole.ready = &fakeNetwork{}, true, true
		for _, tt := range []struct {
			change func(*progress)
			want   string
		}{
			{func(*progress) {}, ""},
			{func(s *progress) { *s = progress{} }, "waiting for an interface with an address"},
			{func(s *progress) { s.sides[inet.IPv4].problem = "it is down" }, "the interface to the other hosts cannot be used: it is down"},
			{func(s *progress) { s.store.Source = nil }, "waiting for the store [http://127.0.0.1:4001 http://127.0.0.1:2379]"},
			{func(s *progress) { s.manager = nil }, "waiting for the network configuration /coreos.com/network/config"},
			{func(s *progress) { s.manager = m.store.NewManager(m.config, r.options.leaseTTL, r.options.renewal) }, "waiting for a subnet"},
			{func(s *progress) { s.network = nil }, "waiting for the network device"},
			{func(s *progress) { s.network, s.replaced = nil, "making the network anew: the uplink is another" }, "making the network anew: the uplink is another"},
			{func(s *progress) { s.applied = false }, "waiting for the first full set of peers"},
		} {
			now := whole
			tt.change(&now)
			r.state.update(func(s *progress) { *s = now })
			full, sum := r.reporter.full(), r.reporter.summary()
			if got := strings.Join(full.NotReady, "; "); got != tt.want || !slices.Equal(full.NotReady, sum.NotReady) {
				t.Errorf("not ready: %q and %q, want %q", full.NotReady, sum.NotReady, tt.want)
			}
			want := tt.want
			if want == "" {
				want = fmt.Sprintf("subnet %v, 0 peers, data path fake", m.lease.Subnet)
			}
			if got := r.reporter.statusLine(); got != want {
				t.Errorf("the status line is %q, want %q", got, want)
			}
		}
		r.state.update(func(s *progress) { *s = whole })
		if got := r.reporter.full().Store; got.Prefix != "/coreos.com/network" || len(got.Endpoints) != 2 || got.Endpoints[1] != "http://127.0.0.1:2379" {
			t.Errorf("the store is %+v", got)
		}
		time.Sleep(rigTTL + time.Second)
		want := fmt.Sprintf("the lease of %v expired at ", m.lease.Subnet)
		if got := r.reporter.full().NotReady; len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("not ready: %q, want %q", got, want)
		}
	})
}

func TestReadyLineInKubernetes(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "6443")
	if got := storeChoices(store.Config{API: store.APIKubernetes}, store.APIKubernetes); got != "kubernetes=https://192.0.2.1:6443" {
		t.Errorf("the store is %q", got)
	}
}

// The line "ready" has every choice, and no password.
func TestReadyLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.options.store.Username, r.options.store.Password = "user", "secret"
		m := r.join()
		got := r.reporter.readyLine(m.config, m.lease, &fakeNetwork{})
		want := fmt.Sprintf(`ready subnet=%v network=10.5.0.0/16 backend=alloc datapath=fake mtu=1472 peers=0 subnet_file=%s datapath_reason="" `+
			`iface=eth0 iface_reason="" public_ip=192.0.2.10 expires=%s node_id=%s ip_masq=false etcd=http://127.0.0.1:4001,http://127.0.0.1:2379 `+
			`etcd_api=3 etcd_prefix=/coreos.com/network etcd_user="user" status_addr=127.0.0.1:8286 state_dir=%s probe_interval=0s`,
			m.lease.Subnet, r.options.subnetFile, m.lease.Expiration.UTC().Format(time.RFC3339), m.lease.Attrs.NodeID, r.options.stateDir)
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		m.lease.Reserved, m.lease.Expiration = true, time.Time{}
		if got := r.reporter.readyLine(m.config, m.lease, &fakeNetwork{}); !strings.Contains(got, " expires=never ") {
			t.Errorf("a reservation expires: %s", got)
		}
	})
}

// An address in use is a failure only if the operator chose it.
func TestStatusAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, optional := range []bool{true, false} {
		s := &statusServer{status.New(status.Config{Addr: taken.Addr().String(), Reconciles: status.NewReconciles()}), optional}
		if err := s.Run(t.Context()); (err == nil) != optional {
			t.Errorf("optional %v: %v", optional, err)
		}
	}
}
