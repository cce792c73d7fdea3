package daemon

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/bits"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/envflag"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/ownfile"
	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// Options are the daemon's options. Each flag is also an environment variable
// (package envflag); the command line wins.
type Options struct {
	store store.Flags

	embed       bool
	embedListen string
	// networkText is the flag -network; networkJSON is the JSON to publish for it,
	// and networkConfig that JSON, parsed. Both are nil without the flag.
	networkText   string
	networkJSON   []byte
	networkConfig *subnet.Config

	iface     uplink.Choice
	publicIPs [len(inet.Families)]netip.Addr // by family
	port      int
	dataPath  string
	fastPath  string
	// fastPathBits is the flag -fastpath-mark, fastPathMark its value.
	fastPathBits string
	fastPathMark uint32

	subnetFile string
	// cniConf is the file to publish in the folder cniConfDir; "" for none.
	cniConf, cniConfDir string
	leaseTTL            time.Duration
	// renewal has the margin of marginMinutes, or half of a short leaseTTL.
	renewal       subnet.Timing
	marginMinutes int
	ipMasq        bool
	ipv6Masq      string // masqAuto, "true" or "false"
	masqExclude   []netip.Prefix
	forwardRules  bool
	blackhole     bool
	orderedPorts  bool
	stateDir      string

	probeInterval time.Duration

	offloadInterval time.Duration
	offloadPort     int
	offloadRepair   bool

	statusAddr  string
	statusPprof bool
	statusGiven bool // the operator chose the address
	healthzIP   string
	healthzPort int

	// nodeCondition is -set-node-network-unavailable.
	nodeCondition bool

	// Version is -version: print the version and exit.
	Version bool
}

const flagRenewMargin = "subnet-lease-renew-margin"

// glogFlags are the flags of package glog that apply to a daemon that logs to
// standard error only.
var glogFlags = []string{"v", "vmodule", "log_backtrace_at", "logtostderr", "alsologtostderr", "stderrthreshold",
	// These have no effect. They exist so that a unit that names them still starts.
	"log_dir", "log_link", "logbuflevel"}

// ParseOptions parses args, then the environment for the flags that args lack.
// Errors: flag.ErrHelp, with the help written to usage; or the flag or variable
// that is wrong, and why.
func ParseOptions(args []string, usage io.Writer) (*Options, error) {
	o := new(Options)
	fs := o.flagSet()
	fs.SetOutput(io.Discard) // main prints Parse's error
	fs.Usage = func() {}
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fs.SetOutput(usage)
		fmt.Fprintf(usage, "Usage: flannel [flags]\n       flannel COMMAND [flags]    (see flannel help)\n\nGives this host a subnet and carries packets between containers on different hosts.\nEvery flag is also an environment variable: -etcd-prefix is %s.\n\nFlags:\n", envflag.Name("etcd-prefix"))
		fs.PrintDefaults()
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w (see flannel -help)", err)
	case fs.NArg() > 0:
		return nil, fmt.Errorf("argument %q is not a flag (see flannel -help)", fs.Arg(0))
	}
	given, err := envflag.Set(fs, store.FlagAliases, "version")
	if err != nil {
		return nil, err
	}
	o.statusGiven = given["status-addr"]
	if err := errors.Join(o.checkEmbed(given), o.checkCNIConf(given)); err != nil {
		return nil, err
	}
	return o, o.check(given[flagRenewMargin])
}

// Flags returns the daemon's flags, for lists and completion.
func Flags() *flag.FlagSet { return new(Options).flagSet() }

func (o *Options) flagSet() *flag.FlagSet {
	fs := flag.NewFlagSet("flannel", flag.ContinueOnError)
	o.store.Register(fs)
	fs.BoolVar(&o.embed, "etcd-embed", false, "run an etcd server inside this process and use it, with its data below -state-dir")
	fs.StringVar(&o.embedListen, "etcd-embed-listen", "127.0.0.1:2379", "`address` that the embedded etcd serves clients at; name one of this host's to let other hosts use it")
	fs.StringVar(&o.networkText, "network", "", "network configuration to publish if there is none: a `CIDR` such as 10.5.0.0/16, one of IPv4 and one of IPv6 separated by a comma, or the whole JSON object")
	fs.Func("iface", "`interface` to the other hosts, by name or IP; may be repeated, the first match wins (default: the default route's)", appendTo(&o.iface.Ifaces))
	fs.Func("iface-regex", "`regexp` for the name or IP of that interface; may be repeated, tried after -iface", appendTo(&o.iface.Regexes))
	fs.StringVar(&o.iface.CanReach, "iface-can-reach", "", "`IP` that the kernel reaches by that interface")
	fs.Func("public-ip", "`IP` that other hosts send to (default: the interface's)", o.setPublicIP(inet.IPv4))
	fs.Func("public-ipv6", "IPv6 `address` that other hosts send to (default: the interface's)", o.setPublicIP(inet.IPv6))
	fs.IntVar(&o.port, "port", 0, "UDP `port`, of all hosts; takes precedence over the configuration's Backend.Port (default 8285)")
	fs.StringVar(&o.dataPath, "udp-datapath", "auto", "how the udp backend moves packets: auto (the best that this machine has), kernel, offload, plain")
	fs.StringVar(&o.fastPath, "fastpath", backend.FastPathAuto, "how packets of containers pass the host with the kernel data path and with host-gw: auto (past bridge and rules, where the rules have passed the flow and need not see each packet), off")
	fs.StringVar(&o.fastPathBits, "fastpath-mark", "0x30000000", "the two `bits` of conntrack marks that the fast path uses; no other program may use them")
	fs.StringVar(&o.subnetFile, "subnet-file", "/run/flannel/subnet.env", "`file` to write the subnet to, for Docker and others")
	fs.StringVar(&o.cniConf, "cni-conf", "", "`file` with the CNI configuration to publish in -cni-conf-dir as 10-flannel.conflist while this host can connect pods; empty: none")
	fs.StringVar(&o.cniConfDir, "cni-conf-dir", "/etc/cni/net.d", "`folder` of the container engine's CNI configurations, for -cni-conf")
	fs.DurationVar(&o.leaseTTL, "subnet-lease-ttl", 24*time.Hour, "how long the subnet's lease lasts")
	fs.IntVar(&o.marginMinutes, flagRenewMargin, 60, "`minutes` before its end at which the lease is renewed, 1 to 1439")
	fs.BoolVar(&o.ipMasq, "ip-masq", false, "masquerade packets that leave the overlay network")
	fs.StringVar(&o.ipv6Masq, "ip-masq-ipv6", masqAuto, "masquerade IPv6 packets that leave the overlay network: auto (as -ip-masq says, if IPv6Network is private, of fc00::/7), true, false")
	fs.Func("ip-masq-exclude", "`CIDR` to which packets are not masqueraded, of either family; may be repeated, or a list separated by commas", o.addMasqExclude)
	fs.BoolVar(&o.orderedPorts, "ip-masq-fully-random-disable", false, "masquerade without random ports")
	fs.BoolVar(&o.forwardRules, "iptables-forward-rules", true, "with -ip-masq, accept packets of the overlay network for forwarding")
	fs.BoolVar(&o.blackhole, "ip-blackhole-route", false, "drop packets for addresses of this host's subnet that no route to containers has, in place of sending them along the default route")
	fs.StringVar(&o.stateDir, "state-dir", "/var/lib/flannel", "`folder` for data that must survive a reboot")
	fs.StringVar(&o.statusAddr, "status-addr", "127.0.0.1:8286", "`address` of the HTTP status and metrics; empty: off")
	fs.BoolVar(&o.statusPprof, "status-pprof", false, "also serve /debug/pprof/ at -status-addr")
	fs.DurationVar(&o.probeInterval, "probe-interval", 2*time.Second, "how often each peer is pinged through the overlay; less often where there are more than 66; 0: never")
	fs.DurationVar(&o.offloadInterval, "offload-probe-interval", 24*time.Second, "how often the offloads on the path to each peer are checked; less often where there are more than 100, or jumbo frames; 0: never")
	fs.IntVar(&o.offloadPort, "offload-probe-port", 8287, "`port` of UDP and TCP at which this host answers the offload probes of its peers; UDP also has the next one")
	fs.BoolVar(&o.offloadRepair, "offload-repair", false, "turn off the switch of a network device that ends a fault of an offload, and on again when the fault is gone")
	fs.StringVar(&o.healthzIP, "healthz-ip", "0.0.0.0", "`IP` to serve /healthz at")
	fs.IntVar(&o.healthzPort, "healthz-port", 0, "`port` to serve /healthz at; 0: off")
	fs.BoolVar(&o.nodeCondition, "set-node-network-unavailable", true, "with -kube-subnet-mgr, keep the condition NetworkUnavailable of this host's Node")
	fs.Int("iptables-resync", 0, "has no effect; it exists so that a manifest for another flannel starts: the kernel announces each change of rules and routes")
	fs.BoolVar(&o.Version, "version", false, "print the version and exit")
	for _, name := range glogFlags {
		if f := flag.CommandLine.Lookup(name); f != nil {
			fs.Var(f.Value, f.Name, f.Usage)
		}
	}
	return fs
}

// setPublicIP returns a function that sets the public IP of a family.
func (o *Options) setPublicIP(f inet.Family) func(string) error {
	return func(s string) error {
		ip, err := netip.ParseAddr(s)
		switch {
		case err != nil:
			return err
		case inet.Of(ip) != f:
			return fmt.Errorf("not an %v address", f)
		case !subnet.IsHostAddr(f, ip):
			return errors.New("not an address of one host that others can send to")
		}
		o.publicIPs[f] = ip
		return nil
	}
}

// masqAuto masquerades packets of a private IPv6 network, and not of a global one:
// other networks can answer its addresses.
const masqAuto = "auto"

// masquerades reports whether packets that leave network are masqueraded.
func (o *Options) masquerades(network netip.Prefix) bool {
	if network.Addr().Is4() {
		return o.ipMasq
	}
	if o.ipv6Masq == masqAuto {
		return o.ipMasq && network.Addr().IsPrivate()
	}
	return o.ipv6Masq == "true"
}

func (o *Options) addMasqExclude(s string) error {
	for _, text := range strings.Split(s, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return err
		}
		o.masqExclude = append(o.masqExclude, p.Masked())
	}
	return nil
}

// check completes the options, and checks those that no other package checks.
func (o *Options) check(marginGiven bool) error {
	margin := time.Duration(o.marginMinutes) * time.Minute
	if o.leaseTTL < time.Second {
		return fmt.Errorf("-subnet-lease-ttl %v is shorter than a second", o.leaseTTL)
	}
	if margin < time.Minute || margin > 1439*time.Minute {
		return fmt.Errorf("-%s %d is not in 1 to 1439 minutes", flagRenewMargin, margin/time.Minute)
	}
	if margin >= o.leaseTTL {
		if marginGiven {
			return fmt.Errorf("-%s %v is not shorter than -subnet-lease-ttl %v: the lease would be renewed without pause", flagRenewMargin, margin, o.leaseTTL)
		}
		margin = o.leaseTTL / 2
	}
	o.renewal.RenewMargin = margin
	for _, p := range []struct {
		flag  string
		value int
	}{{"port", o.port}, {"healthz-port", o.healthzPort}} {
		if p.value < 0 || p.value > 65535 {
			return fmt.Errorf("-%s %d is not in 0 to 65535", p.flag, p.value)
		}
	}
	if err := o.checkHealthz(); err != nil {
		return err
	}
	if p := o.probeInterval; p != 0 && p < 100*time.Millisecond {
		return fmt.Errorf("-probe-interval %v is shorter than 100ms", p)
	}
	if err := o.checkOffloads(); err != nil {
		return err
	}
	if err := all.CheckDataPath(o.dataPath); err != nil {
		return err
	}
	if err := o.checkFastPath(); err != nil {
		return err
	}
	if !slices.Contains([]string{masqAuto, "true", "false"}, o.ipv6Masq) {
		return fmt.Errorf("-ip-masq-ipv6 %q is none of auto, true, false", o.ipv6Masq)
	}
	if err := o.parseNetwork(); err != nil {
		return err
	}
	if err := o.checkCluster(); err != nil {
		return err
	}
	if o.subnetFile == "" {
		return errors.New("-subnet-file is empty: Docker and others would not learn the subnet")
	}
	if err := subnetfile.Check(o.subnetFile); err != nil {
		return fmt.Errorf("-subnet-file %w", err)
	}
	if o.stateDir == "" {
		return errors.New("-state-dir is empty: identity, lease and peers would be forgotten at each start")
	}
	// A user who can replace the files there can name another host's lease or key.
	if err := ownfile.CheckDir(o.stateDir); err != nil {
		return fmt.Errorf("-state-dir: %w", err)
	}
	if err := ownfile.CheckDir(filepath.Dir(o.subnetFile)); err != nil {
		return fmt.Errorf("-subnet-file: %w", err)
	}
	return o.store.Complete()
}

// checkOffloads checks the flags of the offload probes.
func (o *Options) checkOffloads() error {
	if i := o.offloadInterval; i != 0 && i < 100*time.Millisecond {
		return fmt.Errorf("-offload-probe-interval %v is shorter than 100ms", i)
	}
	if p := o.offloadPort; p < 1 || p > 65534 {
		return fmt.Errorf("-offload-probe-port %d is not in 1 to 65534: UDP also has the next port", p)
	}
	if o.offloadRepair && o.offloadInterval == 0 {
		return errors.New("-offload-repair is given with -offload-probe-interval=0: without probes no fault is found; drop one")
	}
	return nil
}

// probesOffloads reports whether this host probes offloads in a network.
func (o *Options) probesOffloads(c *subnet.Config) bool {
	return o.offloadInterval > 0 && all.CarriesPackets(c.BackendType)
}

func (o *Options) checkFastPath() error {
	if o.fastPath != backend.FastPathAuto && o.fastPath != backend.FastPathOff {
		return fmt.Errorf("-fastpath %q is not known; known are %s, %s", o.fastPath, backend.FastPathAuto, backend.FastPathOff)
	}
	mark, err := strconv.ParseUint(o.fastPathBits, 0, 32)
	if err != nil || bits.OnesCount64(mark) != 2 {
		return fmt.Errorf("-fastpath-mark %q is not a number with two bits, such as 0x30000000", o.fastPathBits)
	}
	o.fastPathMark = uint32(mark)
	return nil
}

// checkHealthz refuses a host name, which may resolve to another address at each
// start, and two listeners on one port of the same address.
func (o *Options) checkHealthz() error {
	if _, err := netip.ParseAddr(o.healthzIP); err != nil {
		return fmt.Errorf("-healthz-ip %q is not an IP address: give one of this host's, 127.0.0.1 for this host alone, or 0.0.0.0 for all", o.healthzIP)
	}
	host, port, err := net.SplitHostPort(o.statusAddr)
	if err != nil || o.healthzPort == 0 || port != strconv.Itoa(o.healthzPort) {
		return nil
	}
	every := func(s string) bool { return s == "" || s == "0.0.0.0" || s == "::" }
	if host == o.healthzIP || every(host) || every(o.healthzIP) {
		return fmt.Errorf("-healthz-port %d on %s is taken by -status-addr %s, which serves /healthz too: leave out -healthz-port, or choose another port for one of them", o.healthzPort, o.healthzIP, o.statusAddr)
	}
	return nil
}

// checkEmbed refuses flags that -etcd-embed would ignore, and one that has an
// effect only with it.
func (o *Options) checkEmbed(given map[string]bool) error {
	if !o.embed {
		if given["etcd-embed-listen"] {
			return errors.New("-etcd-embed-listen is given without -etcd-embed: there is no embedded etcd to listen")
		}
		return nil
	}
	for _, name := range []string{"etcd-endpoints", "etcd-endpoint", "etcd-cafile", "etcd-certfile", "etcd-keyfile",
		"etcd-username", "etcd-password", "etcd-password-file"} {
		if given[name] {
			return fmt.Errorf("-etcd-embed and -%s are both given: the store is either the embedded etcd or another one; drop one", name)
		}
	}
	if o.store.API == store.API2 {
		return errors.New("-etcd-embed and -etcd-api=2 are both given: the embedded etcd has the v3 API only; drop one")
	}
	return nil
}

// checkCNIConf checks the flags of the container engine's configuration.
func (o *Options) checkCNIConf(given map[string]bool) error {
	switch {
	case o.cniConf == "" && given["cni-conf-dir"]:
		return errors.New("-cni-conf-dir is given without -cni-conf: there is no configuration to publish")
	case o.cniConf != "" && !filepath.IsAbs(o.cniConfDir):
		return errors.New("-cni-conf-dir is not an absolute path: name the container engine's folder, normally /etc/cni/net.d")
	}
	return nil
}

// checkCluster refuses flags that -kube-subnet-mgr would ignore, and finds out which
// Node is this host's.
func (o *Options) checkCluster() error {
	switch {
	case !o.store.Kube.Enabled:
		return nil
	case o.embed:
		return errors.New("-kube-subnet-mgr and -etcd-embed are both given: the store is either Kubernetes or the embedded etcd; drop one")
	case o.networkText != "":
		return errors.New("-kube-subnet-mgr and -network are both given: the network configuration is the file of -net-config-path; drop -network")
	}
	return o.store.Kube.Join()
}

// useStore makes the embedded etcd's endpoint that of the store.
func (o *Options) useStore(endpoint string) {
	o.store.Endpoints, o.store.API = []string{endpoint}, store.API3
}

// parseNetwork fills networkJSON and networkConfig from networkText: a JSON object,
// or the CIDR to make one of.
func (o *Options) parseNetwork() (err error) {
	if o.networkText == "" {
		return nil
	}
	o.networkJSON = subnet.ConfigText(o.networkText)
	if o.networkConfig, err = subnet.ParseConfig(o.networkJSON); err != nil {
		return fmt.Errorf("-network: %w", err)
	}
	return nil
}

func appendTo(list *[]string) func(string) error {
	return func(s string) error {
		*list = append(*list, s)
		return nil
	}
}
