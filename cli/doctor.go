package cli

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// The verdicts of a check.
const (
	verdictOK   = "ok"
	verdictWarn = "warn"
	verdictFail = "fail"
)

// finding is what one check says.
type finding struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"` // ok, warn, fail
	// Found is what is so, and what it means; Mend the command that changes it.
	Found string `json:"found"`
	Mend  string `json:"mend,omitempty"`
}

func okay(format string, args ...any) finding {
	return finding{Verdict: verdictOK, Found: fmt.Sprintf(format, args...)}
}

func warn(mend, format string, args ...any) finding {
	return finding{Verdict: verdictWarn, Mend: mend, Found: fmt.Sprintf(format, args...)}
}

func fail(mend, format string, args ...any) finding {
	return finding{Verdict: verdictFail, Mend: mend, Found: fmt.Sprintf(format, args...)}
}

// doctor is what the checks need to know.
type doctor struct {
	store  storeSide
	status statusSource
	iface  uplink.Choice
	port   int            // 0: that of the network's backend
	etcd   bool           // the store is asked as well
	ports  map[string]int // all.Ports
	// kernelPath says why the udp backend's kernel data path cannot be had.
	kernelPath func() error

	// What follows is found out before the checks.
	up        uplink.Uplink
	upError   error
	report    *status.Report // nil: there is no daemon that answers
	noReport  error          // why
	config    *subnet.Config // nil: not known
	etcdFound finding
}

var doctorCommand = command{
	name: "doctor", summary: "check whether this host can do flannel's work, and say how to mend what it cannot",
	detail: "It works with and without a running daemon, best as root, and with the daemon's flags. Each check says ok, warn\n" +
		"or fail, what that means, and the command that mends it. It exits with 3 if one says fail.",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		d := &doctor{ports: all.Ports(), kernelPath: p.KernelPath}
		d.store.register(fs)
		d.status.register(fs)
		fs.Func("iface", "`interface`, by name or IP, to send to other hosts by (default: the default route's)", func(s string) error {
			d.iface.Ifaces = append(d.iface.Ifaces, s)
			return nil
		})
		fs.StringVar(&d.iface.CanReach, "iface-can-reach", "", "`IP` that is reached by that interface")
		fs.IntVar(&d.port, "port", 0, "UDP `port` that other hosts send to (default: that of the network's backend)")
		fs.BoolVar(&d.etcd, "etcd", true, "check etcd as well")
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, _ []string) error {
			if d.port < 0 || d.port > 65535 {
				return fmt.Errorf("-port %d is not in 0 to 65535", d.port)
			}
			findings := d.examine(ctx)
			var err error
			if *asJSON {
				err = printJSON(p.Stdout, findings)
			} else {
				p.printFindings(findings)
			}
			for _, f := range findings {
				if f.Verdict == verdictFail && err == nil {
					err = errNo
				}
			}
			return err
		}
	},
}

// examine makes all checks, in an order in which the first failure is most
// likely the cause of the later ones.
func (d *doctor) examine(ctx context.Context) (all []finding) {
	d.up, d.upError = uplink.Find(d.iface)
	if d.status.addr != "" {
		d.report, _, d.noReport = d.status.report(ctx)
	}
	d.etcdFound = d.askEtcd(ctx)
	o := d.examineOverlay(ctx)
	for _, check := range []struct {
		name string
		run  func(context.Context) finding
	}{
		{"tun device", d.tunDevice},
		{"capabilities", d.capabilities},
		{"uplink", d.uplink},
		{"offloads", d.offloads},
		{"ip_forward", d.forwarding},
		{"rp_filter", d.reversePath},
		{"br_netfilter", d.bridgeFilter},
		{"firewall", d.firewall},
		{"kernel data path", d.kernelDataPath},
		{"etcd", func(context.Context) finding { return d.etcdFound }},
		{"clock", d.clock},
		{"daemon", d.daemon},
		{"peers", o.answers},
		{"path MTU", o.sizes},
		{"neighbours", d.neighbours},
	} {
		f := check.run(ctx)
		f.Check = check.name
		if f.Verdict != "" { // a check may not apply
			all = append(all, f)
		}
	}
	return all
}

func (p *Program) printFindings(all []finding) {
	colours := map[string]string{verdictOK: green, verdictWarn: yellow, verdictFail: red}
	for _, f := range all {
		fmt.Fprintf(p.Stdout, "%s%s  %-16s  %s\n", paint(p.Stdout, colours[f.Verdict], f.Verdict),
			strings.Repeat(" ", 4-len(f.Verdict)), f.Check, f.Found)
		if f.Mend != "" {
			fmt.Fprintf(p.Stdout, "%24smend: %s\n", "", f.Mend)
		}
	}
}
