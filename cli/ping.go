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

	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/pkg/probe"
)

// leastPause is the least time between two pings.
const leastPause = time.Millisecond

// pingOptions is what the command line says of how to ping.
type pingOptions struct {
	count             int
	interval, timeout time.Duration
	size, json        bool
}

var pingCommand = command{
	name: "ping", args: "HOST|SUBNET", summary: "ping another host through the overlay, and find the largest packet that passes",
	detail: `HOST is another host's name or public IP, or an address in its subnet, such as a container's. SUBNET is a host's
subnet; flannel's own address there answers, whichever flannel that is. It exits with 0 if there were replies and
packets as large as containers send them pass, and with 3 if not.`,
	prepare: func(p *Program, fs *flag.FlagSet) action {
		var r resolver
		r.register(fs)
		o := pingOptions{interval: time.Second, timeout: time.Second}
		fs.IntVar(&o.count, "c", 5, "`number` of pings; 0: until a signal")
		fs.Func("i", "`time` between two pings, as 200ms, or in seconds (default 1s)", setSeconds(&o.interval))
		fs.Func("timeout", "`time` to wait for each answer, as 200ms, or in seconds (default 1s)", setSeconds(&o.timeout))
		fs.BoolVar(&o.size, "mtu", true, "find the largest packet that passes as well")
		fs.BoolVar(&o.json, "json", false, "print JSON")
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
			return p.ping(ctx, to, o)
		}
	},
}

// setSeconds sets a time from what ping(8) takes, a number of seconds, or from
// a duration with its unit.
func setSeconds(to *time.Duration) func(string) error {
	return func(s string) error {
		d, err := time.ParseDuration(s)
		if seconds, failed := strconv.ParseFloat(s, 64); failed == nil {
			d, err = time.Duration(seconds*float64(time.Second)), nil
		}
		switch {
		case err != nil:
			return errors.New("not a time such as 200ms or 0.2")
		case d < leastPause || d > time.Hour:
			return fmt.Errorf("not in %v to %v", leastPause, time.Hour)
		}
		*to = d
		return nil
	}
}

// pingReport is what "ping -json" prints. Times are in seconds, sizes those of
// containers' packets in bytes.
type pingReport struct {
	destination
	Address  netip.Addr `json:"address"` // that has answered, or that was tried first
	Source   netip.Addr `json:"source"`
	Sent     int        `json:"sent"`
	Received int        `json:"received"`
	Loss     float64    `json:"loss"` // 0 to 1
	RTTMin   float64    `json:"rtt_min_seconds"`
	RTTAvg   float64    `json:"rtt_avg_seconds"`
	RTTMax   float64    `json:"rtt_max_seconds"`
	// MTU is the largest packet that passes, 0 if it was not looked for;
	// NetworkMTU the largest that containers may send.
	MTU        int `json:"mtu"`
	NetworkMTU int `json:"network_mtu"`
}

// pinging is one run of the command.
type pinging struct {
	out    io.Writer // of a line for each ping
	pinger *probe.Pinger
	o      pingOptions

	mu     sync.Mutex   // guards what follows
	addrs  []netip.Addr // to ping: one, once one has answered
	total  time.Duration
	report pingReport
}

func (p *Program) ping(ctx context.Context, to target, o pingOptions) (err error) {
	pinger, err := probe.Dial(to.source)
	if err != nil {
		return err
	}
	r := &pinging{out: p.Stdout, pinger: pinger, o: o, addrs: to.addrs,
		report: pingReport{destination: to.destination, Address: to.addrs[0], Source: to.source, NetworkMTU: to.mtu}}
	if o.json {
		r.out = io.Discard
	}
	listening, stop := context.WithCancel(ctx)
	listened := make(chan error, 1)
	go func() { listened <- pinger.Run(listening) }()
	fmt.Fprintf(r.out, "PING %v at %v from %v\n", to.Subnet, to.hostWords(), to.source)
	err = r.run(ctx)
	stop()
	if err = errors.Join(err, <-listened, pinger.Close()); err != nil {
		return err
	}
	if o.json {
		err = printJSON(p.Stdout, r.report)
	} else {
		err = r.summary(p.Stdout)
	}
	if err == nil && (r.report.Received == 0 || r.report.MTU != 0 && r.report.MTU < to.mtu) {
		err = errNo
	}
	return err
}

// run sends all pings, and looks for the largest packet. A signal ends it early.
func (r *pinging) run(ctx context.Context) error {
	tick := time.NewTicker(r.o.interval)
	defer tick.Stop()
	var g errgroup.Group
	for seq := 1; r.o.count == 0 || seq <= r.o.count; seq++ {
		g.Go(func() error { r.once(ctx, seq); return nil })
		if seq == r.o.count {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		break
	}
	err := g.Wait()
	if r.report.Received == 0 || !r.o.size || ctx.Err() != nil {
		return err
	}
	// A refused size costs this much: several of the longest round trips will do.
	patience := min(r.o.timeout, max(100*time.Millisecond, time.Duration(4*r.report.RTTMax*float64(time.Second))))
	r.report.MTU, err = r.pinger.Largest(ctx, r.report.Address, r.report.NetworkMTU, patience)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// once sends one ping to each address in question, and takes the first answer.
func (r *pinging) once(ctx context.Context, seq int) {
	limited, cancel := context.WithTimeout(ctx, r.o.timeout)
	defer cancel()
	r.mu.Lock()
	addrs := r.addrs
	r.mu.Unlock()
	from, rtt, err := firstOf(limited, r.pinger, addrs)
	if err != nil && ctx.Err() != nil {
		return // it was not given its time
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Sent++
	if err == nil {
		r.addrs, r.report.Address = []netip.Addr{from}, from
		r.answered(rtt)
		fmt.Fprintf(r.out, "reply from %v: seq=%d time=%s ms\n", from, seq, milliseconds(rtt.Seconds()))
	} else if errors.Is(err, context.DeadlineExceeded) {
		fmt.Fprintf(r.out, "no reply: seq=%d, in %v\n", seq, r.o.timeout)
	} else {
		fmt.Fprintf(r.out, "not sent: seq=%d: %v\n", seq, err)
	}
	r.report.Loss = 1 - float64(r.report.Received)/float64(r.report.Sent)
}

// firstOf pings all addresses at once, and takes the first answer.
func firstOf(ctx context.Context, p *probe.Pinger, addrs []netip.Addr) (from netip.Addr, rtt time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type reply struct {
		from netip.Addr
		rtt  time.Duration
		err  error
	}
	replies := make(chan reply, len(addrs))
	for _, addr := range addrs {
		go func() {
			rtt, err := p.Ping(ctx, addr, probe.SmallSize)
			replies <- reply{addr, rtt, err}
		}()
	}
	var first reply
	for i := range addrs { // all of them: nobody else waits
		if got := <-replies; i == 0 || first.err != nil && got.err == nil {
			if first = got; got.err == nil {
				cancel() // the others end at once
			}
		}
	}
	return first.from, first.rtt, first.err
}

func (r *pinging) answered(rtt time.Duration) {
	s := rtt.Seconds()
	if r.report.Received == 0 || s < r.report.RTTMin {
		r.report.RTTMin = s
	}
	r.report.Received++
	r.total += rtt
	r.report.RTTMax = max(r.report.RTTMax, s)
	r.report.RTTAvg = r.total.Seconds() / float64(r.report.Received)
}

func (r *pinging) summary(w io.Writer) error {
	s := r.report
	fmt.Fprintf(w, "%d sent, %d received, %.0f%% lost", s.Sent, s.Received, 100*s.Loss)
	if s.Received > 0 {
		fmt.Fprintf(w, "; round trip min/avg/max %s/%s/%s ms", milliseconds(s.RTTMin), milliseconds(s.RTTAvg), milliseconds(s.RTTMax))
	}
	fmt.Fprintln(w)
	var err error
	switch {
	case s.Received == 0:
		_, err = fmt.Fprintf(w, "%s: nothing comes back through the overlay; sudo flannel doctor says more, here and there\n", paint(w, red, "no reply"))
	case s.MTU == 0: // it was not looked for
	case s.MTU < s.NetworkMTU:
		_, err = fmt.Fprintf(w, "largest packet %s: containers send up to %d, and those that are larger vanish; lower the interface's MTU, or raise it on the way\n",
			paint(w, red, strconv.Itoa(s.MTU)), s.NetworkMTU)
	default:
		_, err = fmt.Fprintf(w, "largest packet %s, which is all that containers send\n", paint(w, green, strconv.Itoa(s.MTU)))
	}
	return err
}

func milliseconds(seconds float64) string { return strconv.FormatFloat(1000*seconds, 'f', 3, 64) }
