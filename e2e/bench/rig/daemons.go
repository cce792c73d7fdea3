package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/subnet"
)

// daemons configures the flannel on both hosts of a pair.
type daemons struct {
	typ string // Backend.Type
	// dataPath is the value of -udp-datapath; empty for other backends.
	dataPath string
	// data is the BackendData, or BackendV6Data, of peer number n; nil for none.
	data func(f inet.Family, n int) any
	// fastPath leaves flannel's fast path between containers on. All other subjects
	// turn it off.
	fastPath bool
}

// running is the transport of a daemon on each host.
type running struct {
	pair  *Pair
	nodes [2]*node
}

// open puts the leases of the simulated peers into the store. Each up starts the
// daemons.
func (d daemons) open(ctx context.Context, p *Pair) (transport, error) {
	store, err := p.rig.openStore(ctx)
	if err != nil {
		return nil, err
	}
	prefix := "/bench/" + p.name
	if err := d.addPeers(ctx, store, prefix, p.setting); err != nil {
		return nil, err
	}
	fastPath, err := d.fastPathFlag(ctx, p.rig.programs.Flannel)
	if err != nil {
		return nil, err
	}
	r := &running{pair: p}
	for i, h := range p.hosts {
		dir := p.rig.folder(h)
		args := []string{
			"-etcd-endpoints=" + store.url, "-etcd-prefix=" + prefix, "-etcd-api=3", "-network=" + d.config(p.setting),
			"-iface=" + linkName, "-status-addr=",
			"-state-dir=" + filepath.Join(dir, "state"), "-subnet-file=" + filepath.Join(dir, "subnet.env"),
		}
		if d.dataPath != "" {
			args = append(args, "-udp-datapath="+d.dataPath)
		}
		if p.setting.Rules.masquerade {
			args = append(args, "-ip-masq")
		}
		args = append(args, fastPath...)
		r.nodes[i] = &node{host: h, program: p.rig.programs.Flannel, args: args, envFile: filepath.Join(dir, "subnet.env"), logFile: filepath.Join(dir, "log")}
	}
	return r, nil
}

// config returns the network's configuration, of IPv4 alone, or of both families for
// IPv6 inside.
func (d daemons) config(in Setting) string {
	network := fmt.Sprintf(`"Network": %q, "SubnetLen": %d`, overlays[inet.IPv4], subnetLen(inet.IPv4))
	if in.Inside == inet.IPv6 {
		network += fmt.Sprintf(`, "EnableIPv6": true, "IPv6Network": %q, "IPv6SubnetLen": %d`, overlays[inet.IPv6], subnetLen(inet.IPv6))
	}
	return fmt.Sprintf(`{%s, "Backend": {"Type": %q}}`, network, d.typ)
}

// fastPathFlag returns the flag that selects the fast path. An older flannel has no
// such flag, and refuses it.
func (d daemons) fastPathFlag(ctx context.Context, flannel string) ([]string, error) {
	if d.fastPath {
		return []string{"-fastpath=auto"}, nil
	}
	help, err := exec.CommandContext(ctx, flannel, "-help").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("get flags of flannel: %w: %s", err, help)
	}
	if bytes.Contains(help, []byte("\n  -fastpath ")) {
		return []string{"-fastpath=off"}, nil
	}
	return nil, nil
}

// addPeers puts so many leases that each real host has the setting's number of routes,
// that to the other real host included.
func (d daemons) addPeers(ctx context.Context, s *store, prefix string, in Setting) error {
	var leases []lease
	for n := 2; n <= in.Routes; n++ {
		l, err := d.peer(n, in.Inside)
		if err != nil {
			return fmt.Errorf("encode lease of peer %d: %w", n, err)
		}
		leases = append(leases, l)
	}
	return s.put(ctx, prefix+"/subnets/", leases)
}

// peer returns the lease of peer number n, of IPv4 alone, or of both families for
// IPv6 inside.
func (d daemons) peer(n int, inside inet.Family) (lease, error) {
	l := subnet.Lease{Subnet: peerSubnet(inet.IPv4, n)}
	value := struct {
		PublicIP      netip.Addr
		PublicIPv6    *netip.Addr
		BackendType   string `json:",omitempty"`
		BackendData   any    `json:",omitempty"`
		BackendV6Data any    `json:",omitempty"`
	}{PublicIP: publicIP(inet.IPv4, n)}
	if d.typ != "udp" {
		value.BackendType = d.typ
	}
	if d.data != nil {
		value.BackendData = d.data(inet.IPv4, n)
	}
	if inside == inet.IPv6 {
		l.IPv6Subnet = peerSubnet(inside, n)
		public := publicIP(inside, n)
		value.PublicIPv6 = &public
		if d.data != nil {
			value.BackendV6Data = d.data(inside, n)
		}
	}
	text, err := json.Marshal(value)
	return lease{l.Key(), string(text)}, err
}

func (r *running) up(ctx context.Context) (envs [2]subnetfile.Env, err error) {
	for i, n := range r.nodes {
		if err := n.start(ctx); err != nil {
			return envs, err
		}
		if envs[i], err = subnetfile.Read(n.envFile); err != nil {
			return envs, fmt.Errorf("read subnet.env of %s: %w", n.host.Name(), err)
		}
	}
	return envs, nil
}

func (r *running) down() error {
	var errs []error
	for _, n := range r.nodes {
		errs = append(errs, n.stop())
	}
	return errors.Join(errs...)
}
