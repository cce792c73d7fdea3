package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// options is the command line. Every flag is also an environment variable, see
// envName; the command line wins.
type options struct {
	store        subnet.StoreConfig
	passwordFile string
	api          string

	embed       bool
	embedListen string
	// network is what -network says, publish the JSON to publish for it.
	network string
	publish []byte

	iface    uplink.Choice
	publicIP netip.Addr
	port     int
	dataPath string

	subnetFile string
	terms      subnet.Terms
	ipMasq     bool
	stateDir   string

	statusAddr  string
	statusGiven bool // the address is the operator's choice, not the default
	healthzIP   string
	healthzPort int

	version bool
}

const (
	defaultEndpoints = "http://127.0.0.1:4001,http://127.0.0.1:2379"
	envPrefix        = "FLANNELD_"
	// flagRenewMargin is named in an error as well.
	flagRenewMargin = "subnet-lease-renew-margin"
)

// glogFlags are the flags of the log package that make sense for a daemon that
// logs to standard error only.
var glogFlags = []string{"v", "vmodule", "log_backtrace_at", "logtostderr", "alsologtostderr", "stderrthreshold",
	// Of these it only matters that a unit which names them still starts.
	"log_dir", "log_link", "logbuflevel"}

// parseOptions reads args, then the environment for what args do not give.
// Errors: flag.ErrHelp after the usage went to usage, or what is wrong with
// which flag or variable.
func parseOptions(args []string, usage io.Writer) (*options, error) {
	o := &options{}
	var margin int
	fs := o.flagSet(&margin)
	fs.SetOutput(io.Discard) // Parse's error says it all; run prints it once
	fs.Usage = func() {}
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fs.SetOutput(usage)
		fmt.Fprintf(usage, "Usage: flannel [flags]\n\nGives this host a subnet and carries packets between containers on different hosts.\nEvery flag is also an environment variable: -etcd-prefix is %sETCD_PREFIX.\n\nFlags:\n", envPrefix)
		fs.PrintDefaults()
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w (see flannel -help)", err)
	case fs.NArg() > 0:
		return nil, fmt.Errorf("argument %q is not a flag (see flannel -help)", fs.Arg(0))
	}
	given, err := fromEnvironment(fs)
	if err != nil {
		return nil, err
	}
	o.statusGiven = given["status-addr"]
	return o, o.check(time.Duration(margin)*time.Minute, given[flagRenewMargin])
}

func (o *options) flagSet(margin *int) *flag.FlagSet {
	fs := flag.NewFlagSet("flannel", flag.ContinueOnError)
	endpoints := listFlag{&o.store.Endpoints}
	if err := endpoints.Set(defaultEndpoints); err != nil {
		panic(err) // unreachable: a list takes any string
	}
	fs.Var(endpoints, "etcd-endpoints", "comma-separated `URLs` of the etcd cluster")
	fs.Var(endpoints, "etcd-endpoint", "the same as -etcd-endpoints, in `URLs`")
	fs.StringVar(&o.store.Prefix, "etcd-prefix", "/coreos.com/network", "`path` of the network's keys in etcd")
	fs.StringVar(&o.store.CAFile, "etcd-cafile", "", "PEM `file` of the authority that signed etcd's certificate")
	fs.StringVar(&o.store.CertFile, "etcd-certfile", "", "PEM `file` of our certificate for etcd")
	fs.StringVar(&o.store.KeyFile, "etcd-keyfile", "", "PEM `file` of our key for etcd")
	fs.StringVar(&o.store.Username, "etcd-username", "", "`name` to log in to etcd with")
	fs.StringVar(&o.store.Password, "etcd-password", "", "password for etcd; other users of this host see the command line, so prefer -etcd-password-file")
	fs.StringVar(&o.passwordFile, "etcd-password-file", "", "`file` that holds the password for etcd")
	fs.StringVar(&o.api, "etcd-api", "auto", "etcd API: 3, 2, or auto: the one whose keyspace holds <prefix>/config, 3 where both do")
	fs.BoolVar(&o.embed, "etcd-embed", false, "run an etcd server inside this process and use it, with its data below -state-dir")
	fs.StringVar(&o.embedListen, "etcd-embed-listen", "127.0.0.1:2379", "`address` that the embedded etcd serves clients at; name one of this host's to let other hosts use it")
	fs.StringVar(&o.network, "network", "", "network configuration to publish if there is none: a `CIDR` such as 10.5.0.0/16, or the whole JSON object")
	fs.Func("iface", "`interface`, by name or IP, to send to other hosts by; may be repeated, the first match wins (default: the default route's)", appendTo(&o.iface.Ifaces))
	fs.Func("iface-regex", "`regexp` for the name or IP of that interface; may be repeated, tried after -iface", appendTo(&o.iface.Regexes))
	fs.StringVar(&o.iface.CanReach, "iface-can-reach", "", "`IP` that is reached by that interface")
	fs.Func("public-ip", "`IP` that other hosts send to (default: the interface's)", func(s string) (err error) {
		o.publicIP, err = netip.ParseAddr(s)
		switch {
		case err != nil:
		case !o.publicIP.Is4():
			err = errors.New("not an IPv4 address")
		case !o.publicIP.IsGlobalUnicast() && !o.publicIP.IsLinkLocalUnicast():
			err = errors.New("not an address of one host that others can send to")
		}
		return err
	})
	fs.IntVar(&o.port, "port", 0, "UDP `port`, of all hosts; takes precedence over the configuration's Backend.Port (default 8285)")
	fs.StringVar(&o.dataPath, "udp-datapath", "auto", "how the udp backend moves packets: auto (the best that this machine has), offload, plain")
	fs.StringVar(&o.subnetFile, "subnet-file", "/run/flannel/subnet.env", "`file` to write the subnet to, for Docker and others")
	fs.DurationVar(&o.terms.TTL, "subnet-lease-ttl", 24*time.Hour, "for how long the subnet is leased")
	fs.IntVar(margin, flagRenewMargin, 60, "`minutes` before its end at which the lease is renewed, 1 to 1439")
	fs.BoolVar(&o.ipMasq, "ip-masq", false, "masquerade what leaves the overlay network")
	fs.StringVar(&o.stateDir, "state-dir", "/var/lib/flannel", "`folder` for what must outlive a reboot")
	fs.StringVar(&o.statusAddr, "status-addr", "127.0.0.1:8286", "`address` of the HTTP status and metrics; empty: off")
	fs.StringVar(&o.healthzIP, "healthz-ip", "0.0.0.0", "`IP` to serve /healthz at")
	fs.IntVar(&o.healthzPort, "healthz-port", 0, "`port` to serve /healthz at; 0: off")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	for _, name := range glogFlags {
		if f := flag.CommandLine.Lookup(name); f != nil {
			fs.Var(f.Value, f.Name, f.Usage)
		}
	}
	return fs
}

// check completes the options and checks what no other package does.
func (o *options) check(margin time.Duration, marginGiven bool) error {
	if o.terms.TTL < time.Second {
		return fmt.Errorf("-subnet-lease-ttl %v is shorter than a second", o.terms.TTL)
	}
	if margin < time.Minute || margin > 1439*time.Minute {
		return fmt.Errorf("-%s %d is not in 1 to 1439 minutes", flagRenewMargin, margin/time.Minute)
	}
	if margin >= o.terms.TTL {
		if marginGiven {
			return fmt.Errorf("-%s %v is not shorter than -subnet-lease-ttl %v: the lease would be renewed without pause", flagRenewMargin, margin, o.terms.TTL)
		}
		margin = o.terms.TTL / 2
	}
	o.terms.RenewMargin = margin
	for _, p := range []struct {
		flag  string
		value int
	}{{"port", o.port}, {"healthz-port", o.healthzPort}} {
		if p.value < 0 || p.value > 65535 {
			return fmt.Errorf("-%s %d is not in 0 to 65535", p.flag, p.value)
		}
	}
	if err := o.parseNetwork(); err != nil {
		return err
	}
	if o.subnetFile == "" {
		return errors.New("-subnet-file is empty: Docker and others would not learn the subnet")
	}
	if !slices.Contains([]string{store.APIAuto, store.API2, store.API3}, o.api) {
		return fmt.Errorf("-etcd-api %q is none of %s, %s, %s", o.api, store.APIAuto, store.API3, store.API2)
	}
	if err := o.readPassword(); err != nil {
		return err
	}
	checked, err := o.store.Validate()
	if err != nil {
		return err
	}
	_, err = checked.TLS()
	return err
}

// readPassword takes the password from its file, if one is named.
func (o *options) readPassword() error {
	if o.passwordFile == "" {
		return nil
	}
	if o.store.Password != "" {
		return errors.New("-etcd-password and -etcd-password-file are both given; drop one")
	}
	secret, err := os.ReadFile(o.passwordFile)
	if err != nil {
		return fmt.Errorf("read -etcd-password-file: %w", err)
	}
	o.store.Password = strings.TrimRight(string(secret), "\r\n")
	return nil
}

// parseNetwork makes publish of network: the JSON object as it is, or one made
// around a CIDR.
func (o *options) parseNetwork() error {
	if o.network == "" {
		return nil
	}
	o.publish = []byte(o.network)
	if !strings.HasPrefix(strings.TrimSpace(o.network), "{") {
		o.publish = fmt.Appendf(nil, `{"Network": %q}`, o.network)
	}
	if _, err := subnet.ParseConfig(o.publish); err != nil {
		return fmt.Errorf("-network: %w", err)
	}
	return nil
}

// fromEnvironment sets each flag that the command line does not give from its
// environment variable, if that is not empty, and returns the names of all
// flags that are given.
func fromEnvironment(fs *flag.FlagSet) (map[string]bool, error) {
	given := make(map[string]bool)
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	// An alias on the command line wins over its twin in the environment.
	shadowed := given["etcd-endpoint"] || given["etcd-endpoints"]
	var errs []error
	fs.VisitAll(func(f *flag.Flag) {
		value := os.Getenv(envName(f.Name))
		if value == "" || f.Name == "version" || given[f.Name] || shadowed && strings.HasPrefix(f.Name, "etcd-endpoint") {
			return
		}
		given[f.Name] = true
		if err := fs.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", envName(f.Name), err))
		}
	})
	return given, errors.Join(errs...)
}

// envName is the environment variable of a flag: -etcd-prefix is
// FLANNELD_ETCD_PREFIX.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// listFlag is a comma-separated list; setting it replaces what was there.
type listFlag struct{ to *[]string }

func (l listFlag) String() string {
	if l.to == nil {
		return ""
	}
	return strings.Join(*l.to, ",")
}

func (l listFlag) Set(s string) error {
	*l.to = nil
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			*l.to = append(*l.to, item)
		}
	}
	return nil
}

func appendTo(list *[]string) func(string) error {
	return func(s string) error {
		*list = append(*list, s)
		return nil
	}
}
