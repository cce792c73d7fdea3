package daemon

import (
	"net/netip"
	"os"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/subnet"
)

// Networks of earlier runs are known from subnet.env and from the checkpoint.
func TestLastRunNetworks(t *testing.T) {
	dir := t.TempDir()
	o := parse(t, "-state-dir="+dir, "-subnet-file="+dir+"/subnet.env")
	f := newCheckpointFile(o)
	now, old := netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("10.6.0.0/16")
	if got := readLastRun(o, f).networks(&subnet.Config{Range: subnet.Range{Network: now}}); len(got) > 0 {
		t.Errorf("before any run: %v", got)
	}
	if err := f.save(checkpoint{API: "3", Config: subnet.Config{Range: subnet.Range{Network: old}}, Lease: subnet.Lease{Subnet: netip.MustParsePrefix("10.6.1.0/24")}}); err != nil {
		t.Fatal(err)
	}
	if got := readLastRun(o, f).networks(&subnet.Config{Range: subnet.Range{Network: now}}); len(got) != 1 || got[0] != old {
		t.Errorf("the checkpoint has %v: %v", old, got)
	}
	env := subnetfile.Env{Network: old, Subnet: netip.MustParsePrefix("10.6.1.0/24"), MTU: 1472}
	if err := subnetfile.Write(o.subnetFile, env); err != nil {
		t.Fatal(err)
	}
	if got := readLastRun(o, f).networks(&subnet.Config{Range: subnet.Range{Network: now}}); len(got) != 1 || got[0] != old {
		t.Errorf("both have %v: %v", old, got)
	}
	if err := f.remove(); err != nil {
		t.Fatal(err)
	}
	if got := readLastRun(o, f).networks(&subnet.Config{Range: subnet.Range{Network: old}}); len(got) > 0 {
		t.Errorf("the present network: %v", got)
	}
}

// The last run's subnet is known also when a reboot has emptied /run, or a file is
// damaged.
func TestLastRunSubnet(t *testing.T) {
	dir := t.TempDir()
	o := parse(t, "-state-dir="+dir, "-subnet-file="+dir+"/subnet.env")
	f := newCheckpointFile(o)
	was := netip.MustParsePrefix("10.5.7.0/24")
	if got := readLastRun(o, f).subnet(inet.IPv4); got.IsValid() {
		t.Errorf("before any run: %v", got)
	}
	if err := f.save(checkpoint{API: "3", Lease: subnet.Lease{Subnet: was}}); err != nil {
		t.Fatal(err)
	}
	if got := readLastRun(o, f).subnet(inet.IPv4); got != was {
		t.Errorf("without subnet.env: %v, want %v", got, was)
	}
	if err := os.WriteFile(o.subnetFile, []byte("nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := readLastRun(o, f).subnet(inet.IPv4); got != was {
		t.Errorf("with a damaged subnet.env: %v, want %v", got, was)
	}
}
