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

	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/subnet"
)

// daemons configures the flannel on both hosts of a pair.
type daemons struct {
	typ string // Backend.Type
	// dataPath is the value of -udp-datapath; empty for other backends.
	dataPath string
	// data is the BackendData of peer number n; nil for none.
	data func(n int) any
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
	if err := d.addPeers(ctx, store, prefix, p.setting.Routes); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`{"Network": %q, "SubnetLen": %d, "Backend": {"Type": %q}}`, overlay, subnetLen, d.typ)
	fastPath, err := d.fastPathFlag(ctx, p.rig.programs.Flannel)
	if err != nil {
		return nil, err
	}
	r := &running{pair: p}
	for i, h := range p.hosts {
		dir := p.rig.folder(h)
		args := []string{
			"-etcd-endpoints=" + store.url, "-etcd-prefix=" + prefix, "-etcd-api=3", "-network=" + config,
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

// addPeers puts so many leases that each real host has that many routes, that to
// the other real host included.
func (d daemons) addPeers(ctx context.Context, s *store, prefix string, routes int) error {
	var leases []lease
	for n := 2; n <= routes; n++ {
		value := struct {
			PublicIP    netip.Addr
			PublicIPv6  *string
			BackendType string `json:",omitempty"`
			BackendData any    `json:",omitempty"`
		}{PublicIP: publicIP(n)}
		if d.typ != "udp" {
			value.BackendType = d.typ
		}
		if d.data != nil {
			value.BackendData = d.data(n)
		}
		text, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("encode lease of peer %d: %w", n, err)
		}
		leases = append(leases, lease{subnet.Lease{Subnet: peerSubnet(n)}.Key(), string(text)})
	}
	return s.put(ctx, prefix+"/subnets/", leases)
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
