package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"text/tabwriter"

	"github.com/coreos/flannel/pkg/inet"
)

// rtt finds the average in the last line of ping's summary, in milliseconds.
var rtt = regexp.MustCompile(`= [0-9.]+/([0-9.]+)/`)

func (d *demo) printHosts() {
	fmt.Fprintf(d.out, "%d hosts share %s; the etcd is inside the first one's daemon.\n\n", len(d.nodes), network)
	w := tabwriter.NewWriter(d.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "HOST\tADDRESS\tSUBNET\tCONTAINER\tMTU\tDATA PATH")
	for _, n := range d.nodes {
		fmt.Fprintf(w, "%s\t%v\t%v\t%v\t%d\t%s\n", n.Name(), n.Addr().Addr(), n.env.Subnet,
			n.container.Addr().Addr(), n.env.MTU, n.dataPath)
	}
	w.Flush()
	fmt.Fprintln(d.out)
}

// printPings pings every container from every other by a family. A ping without an
// answer is an error.
func (d *demo) printPings(ctx context.Context, f inet.Family) error {
	w := tabwriter.NewWriter(d.out, 0, 0, 3, ' ', 0)
	head, by := "ROUND TRIP, ms", ""
	if f == inet.IPv6 {
		head, by = "BY IPv6, ms", " by IPv6"
		fmt.Fprintln(d.out)
	}
	fmt.Fprint(w, head)
	for _, to := range d.nodes {
		fmt.Fprintf(w, "\tto %s", to.container.Name())
	}
	fmt.Fprintln(w)
	pairs, reached := 0, 0
	for _, from := range d.nodes {
		fmt.Fprintf(w, "from %s", from.container.Name())
		for _, to := range d.nodes {
			if from == to {
				fmt.Fprint(w, "\t-")
				continue
			}
			pairs++
			time, err := ping(ctx, from, to, f)
			if err != nil {
				time = "no answer"
			} else {
				reached++
			}
			fmt.Fprintf(w, "\t%s", time)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	fmt.Fprintf(d.out, "\n%d of %d pairs reach each other%s.\n", reached, pairs, by)
	if reached < pairs {
		return fmt.Errorf("%d pairs do not reach each other%s", pairs-reached, by)
	}
	return nil
}

// ping returns the average round trip of a few packets between two containers, in
// milliseconds.
func ping(ctx context.Context, from, to *node, f inet.Family) (string, error) {
	addr := to.container.Addr().Addr()
	if f == inet.IPv6 {
		addr = to.container.IPv6Addr().Addr()
	}
	cmd := from.container.Command(ctx, "ping", "-n", "-q", "-c", "5", "-i", "0.05", "-w", "5", addr.String())
	out, err := cmd.Output()
	if err != nil {
		return "", err
	}
	average := rtt.FindSubmatch(out)
	if average == nil {
		return "", fmt.Errorf("no round trip in the output of ping: %s", out)
	}
	return string(average[1]), nil
}

func (d *demo) printHints() {
	a, b := d.nodes[0], d.nodes[1]
	fmt.Fprintf(d.out, `
It stays up until Ctrl-C. From another terminal, as root:

  a shell in a container     ip netns exec %[1]s sh
  ping across hosts          ip netns exec %[1]s ping %[2]v
  packets on the wire        ip netns exec %[3]s tcpdump -ni eth0 udp port 8285
  a daemon's status          ip netns exec %[3]s curl -s %[4]s/api/v1/status
  its routes and devices     ip -n %[3]s route; ip -n %[3]s address
`, a.container.Netns(), b.container.Addr().Addr(), a.Netns(), statusURL)
	for _, n := range d.nodes {
		fmt.Fprintf(d.out, "  log of %-20s%s\n", n.Name(), n.logFile)
	}
}
