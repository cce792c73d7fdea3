// Command release is a host with the current release of flannel-io: its backends udp,
// vxlan and host-gw, its client of etcd and its firewall rules, run as its main does.
// The packages for clouds and Kubernetes are left out. It is a module of its own: the
// daemon's dependencies and the release's need not agree on versions.
//
//	release -etcd-endpoints http://192.168.77.1:2379 -subnet-file /run/flannel/subnet.env -ip-masq
//
// The backend udp needs cgo on amd64.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw"
	_ "github.com/flannel-io/flannel/pkg/backend/udp"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet"
	"github.com/flannel-io/flannel/pkg/subnet/etcd"
	"github.com/flannel-io/flannel/pkg/trafficmngr"
	"github.com/flannel-io/flannel/pkg/trafficmngr/iptables"
	"github.com/flannel-io/flannel/pkg/trafficmngr/nftables"
)

// Defaults of the release's flags.
const (
	prefix       = "/coreos.com/network"
	renewMargin  = 60 // min
	resyncPeriod = 5  // s
)

// host is the command line.
type host struct {
	endpoints, subnetFile string
	masquerade            bool
}

func main() {
	var h host
	flag.StringVar(&h.endpoints, "etcd-endpoints", "", "etcd's URLs, separated by commas")
	flag.StringVar(&h.subnetFile, "subnet-file", "", "`file` to write the subnet to")
	flag.BoolVar(&h.masquerade, "ip-masq", false, "masquerade packets that leave the overlay")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := h.run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "release: %v\n", err)
		os.Exit(1)
	}
}

// run has the order of the release's main.
func (h host) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	former := h.subnet()
	store, err := etcd.NewLocalManager(ctx, &etcd.EtcdConfig{Endpoints: strings.Split(h.endpoints, ","), Prefix: prefix}, former, noIPv6(), renewMargin)
	if err != nil {
		return err
	}
	config, err := store.GetNetworkConfig(ctx)
	if err != nil {
		return err
	}
	stack, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return err
	}
	uplink, err := ipmatch.LookupExtIface("", "", "", stack, ipmatch.PublicIPOpts{})
	if err != nil {
		return err
	}
	chosen, err := backend.NewManager(ctx, store, uplink).GetBackend(config.BackendType)
	if err != nil {
		return err
	}
	network, err := chosen.RegisterNetwork(ctx, &wg, config)
	if err != nil {
		return err
	}
	if err := h.addRules(ctx, config, network, former); err != nil {
		return err
	}
	lease := network.Lease()
	if err := store.HandleSubnetFile(h.subnetFile, config, h.masquerade, lease.Subnet, lease.IPv6Subnet, network.MTU()); err != nil {
		return err
	}
	wg.Go(func() { network.Run(ctx) })
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return err
	}
	return store.CompleteLease(ctx, lease, &wg)
}

// addRules removes the firewall rules of the release's other kind, and adds those of the
// configured one.
func (h host) addRules(ctx context.Context, config *subnet.Config, network backend.Network, former ip.IP4Net) error {
	var rules, others trafficmngr.TrafficManager = &iptables.IPTablesManager{}, &nftables.NFTablesManager{}
	if config.EnableNFTables {
		rules, others = others, rules
	}
	if err := others.CleanUp(ctx); err != nil {
		return err
	}
	if err := rules.Init(ctx); err != nil {
		return err
	}
	if h.masquerade {
		err := rules.SetupAndEnsureMasqRules(ctx, config.Network, former, config.Network, config.IPv6Network, noIPv6(), noIPv6(), network.Lease(), resyncPeriod, false)
		if err != nil {
			return err
		}
	}
	rules.SetupAndEnsureForwardRules(ctx, config.Network, config.IPv6Network, resyncPeriod)
	return nil
}

// subnet returns the subnet of the last run, or zero.
func (h host) subnet() (former ip.IP4Net) {
	text, _ := os.ReadFile(h.subnetFile) // an error: there is none
	for line := range strings.Lines(string(text)) {
		value, _ := strings.CutPrefix(strings.TrimSpace(line), "FLANNEL_SUBNET=")
		if _, network, err := net.ParseCIDR(value); err == nil {
			former = ip.FromIPNet(network)
		}
	}
	return former
}

func noIPv6() ip.IP6Net { return ip.IP6Net{IP: (*ip.IP6)(big.NewInt(0))} }
