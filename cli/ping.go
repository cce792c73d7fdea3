package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/flannel/pkg/probe"
)

// minInterval is the shortest time between two pings.
const minInterval = time.Millisecond

type pingOptions struct {
	count             int
	interval, timeout time.Duration
	mtu               bool
}

var pingCommand = command{
	name: "ping", args: "HOST|SUBNET", summary: "ping another host through the overlay, and find the largest packet that arrives",
	detail: `HOST is the name or public IP of another host, or an address in its subnet, such as a container's. SUBNET is a host's
subnet; flannel's own address in it answers, in any version of flannel. The exit code is 0 if there are replies and the
largest packets of containers arrive, else 3.`,
	json: "print JSON",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		r := newResolver(fs)
		o := pingOptions{interval: time.Second, timeout: time.Second}
		fs.IntVar(&o.count, "c", 5, "`number` of pings; 0: until a signal")
		fs.Func("i", "`time` between two pings, e.g. 200ms, or in seconds (default 1s)", setSeconds(&o.interval))
		fs.Func("timeout", "`time` to wait for each reply, e.g. 200ms, or in seconds (default 1s)", setSeconds(&o.timeout))
		fs.BoolVar(&o.mtu, "mtu", true, "find the largest packet that arrives, too")
		return func(ctx context.Context, args []string) error {
			switch {
			case len(args) != 1:
				return flag.ErrHelp
			case o.count < 0:
				return fmt.Errorf("-c %d is negative", o.count)
			}
			to, err := r.resolve(ctx, args[0])
			if err != nil {
				return err
			}
			return ping(ctx, p, to, o)
		}
	},
}

// setSeconds parses a number of seconds, as ping(8) does, or a duration with a
// unit.
func setSeconds(to *time.Duration) func(string) error {
	return func(s string) error {
		d, err := time.ParseDuration(s)
		if seconds, failed := strconv.ParseFloat(s, 64); failed == nil {
			d, err = time.Duration(seconds*float64(time.Second)), nil
		}
		switch {
		case err != nil:
			return errors.New("not a time such as 200ms or 0.2")
		case d < minInterval || d > time.Hour:
			return fmt.Errorf("not in %v to %v", minInterval, time.Hour)
		}
		*to = d
		return nil
	}
}

// pingReport is the output of "ping -json". Times are in seconds, sizes are those
// of containers' packets in bytes.
type pingReport struct {
	destination
	Address  netip.Addr `json:"address"` // the one that replied, else the first of those pinged
	Source   netip.Addr `json:"source"`
	Sent     int        `json:"sent"`
	Received int        `json:"received"`
	Loss     float64    `json:"loss"` // 0 to 1
	RTTMin   float64    `json:"rtt_min_seconds"`
	RTTAvg   float64    `json:"rtt_avg_seconds"`
	RTTMax   float64    `json:"rtt_max_seconds"`
	// MTU is the largest packet that arrives, 0 if it was not measured. NetworkMTU
	// is the largest that containers may send.
	MTU        int `json:"mtu"`
	NetworkMTU int `json:"network_mtu"`
}

type pingRun struct {
	out    io.Writer // gets a line for each ping
	pinger *probe.Pinger
	o      pingOptions

	mu     sync.Mutex   // guards the fields below
	addrs  []netip.Addr // to ping; after the first reply only its sender
	report pingReport
}

func ping(ctx context.Context, p *Program, to target, o pingOptions) (err error) {
	pinger, err := probe.Dial(to.source)
	if err != nil {
		return err
	}
	r := &pingRun{out: p.Stdout, pinger: pinger, o: o, addrs: to.addrs,
		report: pingReport{destination: to.destination, Address: to.addrs[0], Source: to.source, NetworkMTU: to.mtu}}
	if p.json {
		r.out = io.Discard
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- pinger.Run(running) }()
	fmt.Fprintf(r.out, "PING %v at %v from %v\n", to.Subnet, to.host(), to.source)
	err = r.run(ctx)
	stop()
	if err = errors.Join(err, <-ended, pinger.Close()); err != nil {
		return err
	}
	if err = p.print(r.report, "%s\n", r.report.summary(p.Stdout)); err == nil && (r.report.Received == 0 || r.report.MTU != 0 && r.report.MTU < to.mtu) {
		err = errNegative
	}
	return err
}

// run sends all pings, then measures the largest packet. A signal ends it early.
func (r *pingRun) run(ctx context.Context) error {
	tick := time.NewTicker(r.o.interval)
	defer tick.Stop()
	var pings sync.WaitGroup
	for seq := 1; ctx.Err() == nil; seq++ {
		pings.Go(func() { r.once(ctx, seq) })
		if seq == r.o.count {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	pings.Wait()
	if r.report.Received == 0 || !r.o.mtu || ctx.Err() != nil {
		return nil
	}
	// Each size that does not arrive costs one timeout, so it is a few round trips.
	timeout := min(r.o.timeout, max(100*time.Millisecond, time.Duration(4*r.report.RTTMax*float64(time.Second))))
	var err error
	r.report.MTU, err = r.pinger.Largest(ctx, r.report.Address, r.report.NetworkMTU, timeout)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// once pings all addresses in r.addrs once, and records the first reply.
func (r *pingRun) once(ctx context.Context, seq int) {
	limited, cancel := context.WithTimeout(ctx, r.o.timeout)
	defer cancel()
	r.mu.Lock()
	addrs := r.addrs
	r.mu.Unlock()
	from, rtt, err := firstReply(limited, r.pinger, addrs)
	if err != nil && ctx.Err() != nil {
		return // a signal ended it early
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Sent++
	if err == nil {
		r.addrs, r.report.Address = []netip.Addr{from}, from
		r.report.record(rtt.Seconds())
		fmt.Fprintf(r.out, "reply from %v: seq=%d time=%s ms\n", from, seq, milliseconds(rtt.Seconds()))
	} else if errors.Is(err, context.DeadlineExceeded) {
		fmt.Fprintf(r.out, "no reply: seq=%d, in %v\n", seq, r.o.timeout)
	} else {
		fmt.Fprintf(r.out, "not sent: seq=%d: %v\n", seq, err)
	}
	r.report.Loss = 1 - float64(r.report.Received)/float64(r.report.Sent)
}

// record counts a reply after rtt seconds.
func (s *pingReport) record(rtt float64) {
	s.Received++
	if s.Received == 1 || rtt < s.RTTMin {
		s.RTTMin = rtt
	}
	s.RTTMax = max(s.RTTMax, rtt)
	s.RTTAvg += (rtt - s.RTTAvg) / float64(s.Received)
}

// summary returns the results in words, for w.
func (s *pingReport) summary(w io.Writer) string {
	text := fmt.Sprintf("%d sent, %d received, %.0f%% lost", s.Sent, s.Received, 100*s.Loss)
	if s.Received > 0 {
		text += fmt.Sprintf("; round trip min/avg/max %s/%s/%s ms", milliseconds(s.RTTMin), milliseconds(s.RTTAvg), milliseconds(s.RTTMax))
	}
	mtu := strconv.Itoa(s.MTU)
	switch {
	case s.Received == 0:
		text += "\n" + paint(w, red, "no reply") + ": no packet returns through the overlay; run sudo flannel doctor on both hosts"
	case s.MTU == 0: // not measured
	case s.MTU < s.NetworkMTU:
		text += fmt.Sprintf("\nlargest packet %s: containers send up to %d bytes, and larger packets are lost; lower the MTU of the interface, or raise that of the path",
			paint(w, red, mtu), s.NetworkMTU)
	default:
		text += "\nlargest packet " + paint(w, green, mtu) + ", the largest that containers send"
	}
	return text
}

func milliseconds(seconds float64) string { return strconv.FormatFloat(1000*seconds, 'f', 3, 64) }
