package cli

import (
	"context"
	"flag"
	"fmt"
	"strings"
)

var doctorCommand = command{
	name: "doctor", summary: "check whether this host can run flannel, and print how to fix what is wrong",
	detail: "It works with and without a running daemon, best as root, and takes the daemon's flags. Each check prints ok, warn or\n" +
		"fail, the state that it found, and the command that fixes it. The exit code is 3 if a check fails.",
	json: "print JSON",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		flags := newDoctorFlags(fs)
		return func(ctx context.Context, _ []string) error {
			if flags.port < 0 || flags.port > 65535 {
				return fmt.Errorf("-port %d is not in 0 to 65535", flags.port)
			}
			findings := examine(ctx, flags)
			var err error
			if p.json {
				err = printJSON(p.Stdout, findings)
			} else {
				printFindings(p, findings)
			}
			for _, f := range findings {
				if f.Verdict == verdictFail && err == nil {
					err = errNegative
				}
			}
			return err
		}
	},
}

// Verdicts of a check.
const (
	verdictOK   = "ok"
	verdictWarn = "warn"
	verdictFail = "fail"
)

// finding is the result of a check. It has no verdict if the check does not
// apply.
type finding struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"` // ok, warn, fail
	// Found is the state and its consequence; Fix is the command that changes it.
	Found string `json:"found"`
	Fix   string `json:"fix,omitempty"`
}

func okay(format string, args ...any) finding {
	return finding{Verdict: verdictOK, Found: fmt.Sprintf(format, args...)}
}

func warn(fix, format string, args ...any) finding {
	return finding{Verdict: verdictWarn, Fix: fix, Found: fmt.Sprintf(format, args...)}
}

func failed(fix, format string, args ...any) finding {
	return finding{Verdict: verdictFail, Fix: fix, Found: fmt.Sprintf(format, args...)}
}

// examine runs all checks. Their order is that of causes: the first failure most
// likely causes the later ones.
func examine(ctx context.Context, flags *doctorFlags) (all []finding) {
	f := gatherFacts(ctx, flags)
	o := measureOverlay(ctx, f)
	for _, check := range []struct {
		name string
		finding
	}{
		{"tun device", checkTUN()},
		{"capabilities", checkCapabilities()},
		{"uplink", checkUplink(f)},
		{"offloads", checkOffloads(f)},
		{"ip_forward", checkForwarding(f)},
		{"IPv6", checkIPv6(f)},
		{"rp_filter", checkReversePath()},
		{"br_netfilter", checkBridgeFilter()},
		{"firewall", checkFirewall(f)},
		{"kernel data path", checkKernelPath(f)},
		{"host rules", checkHostRules(f)},
		{"fast path", checkFastPath(f)},
		{f.storeName(), checkStore(f)},
		{"network", checkNetwork(f)},
		{"clock", checkClock(ctx, f)},
		{"cni0", checkPodBridge(f)},
		{"CNI configuration", checkCNIFiles(f, cniFolder)},
		{"kube-proxy", checkProxy(ctx, f)},
		{"daemon", checkDaemon(f)},
		{"peers", o.checkPeers()},
		{"path MTU", o.checkMTU()},
		{"offload faults", checkOffloadFaults(f)},
		{"BIG TCP", checkBigTCP(f)},
		{"neighbours", checkNeighbours(f)},
	} {
		check.Check = check.name
		check.Found = strings.ReplaceAll(check.Found, "\n", "; ") // errors.Join separates by newlines
		if check.Verdict != "" {
			all = append(all, check.finding)
		}
	}
	return all
}

func printFindings(p *Program, all []finding) {
	colours := map[string]string{verdictOK: green, verdictWarn: yellow, verdictFail: red}
	for _, f := range all {
		fmt.Fprintf(p.Stdout, "%s%s  %-16s  %s\n", paint(p.Stdout, colours[f.Verdict], f.Verdict),
			strings.Repeat(" ", 4-len(f.Verdict)), f.Check, f.Found)
		if f.Fix != "" {
			fmt.Fprintf(p.Stdout, "%24sfix: %s\n", "", f.Fix)
		}
	}
}
