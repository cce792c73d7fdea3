package fastpath

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lifetime is how long the programs go on without user space.
	lifetime = 60 * time.Second
	// renewEvery is how often user space renews that time.
	renewEvery = 15 * time.Second
	// longest is the longest timeout, in seconds, that bpf_ct_change_timeout takes
	// in milliseconds.
	longest = math.MaxInt32 / 1000
)

// jiffiesPerSecond is CONFIG_HZ of the kernel: a coarse clock steps by a jiffy
// (CLOCK_MONOTONIC_COARSE, hrtimer_get_res in kernel/time/posix-timers.c).
func jiffiesPerSecond() (uint32, error) {
	var step unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &step); err != nil {
		return 0, fmt.Errorf("read resolution of the coarse clock: %w", err)
	}
	if step.Nano() <= 0 {
		return 0, errors.New("read resolution of the coarse clock: it is 0")
	}
	return uint32((time.Second.Nanoseconds() + step.Nano()/2) / step.Nano()), nil
}

// renew writes the timeouts of connection tracking, and lets the programs go on for
// lifetime; if replied is true, for flows with a reply only. It runs in the network
// namespace of the device.
func (p *programs) renew(replied bool) error {
	s := fastpathSettings{Epoch: p.epoch.Load()}
	if replied {
		s.Replied = 1
	}
	if p.lacking == nil {
		if err := readTimeouts(&s); err != nil {
			return err
		}
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read monotonic clock: %w", err)
	}
	s.Until = uint64(now.Nano() + lifetime.Nanoseconds())
	return p.putSettings(s)
}

// readTimeouts reads those of connection tracking as they are now.
func readTimeouts(s *fastpathSettings) error {
	for name, value := range map[string]*uint32{
		"tcp_timeout_established":    &s.Tcp,
		"tcp_timeout_unacknowledged": &s.TcpUnacknowledged,
		"udp_timeout":                &s.Udp,
		"udp_timeout_stream":         &s.UdpStream,
	} {
		seconds, err := conntrackTimeout(name)
		if err != nil {
			return err
		}
		*value = seconds
	}
	return nil
}

// suspend has all packets take the long way from now on.
func (p *programs) suspend() error { return p.putSettings(fastpathSettings{Epoch: p.epoch.Load()}) }

func (p *programs) putSettings(s fastpathSettings) error {
	if err := p.Settings.Put(uint32(0), s); err != nil {
		return fmt.Errorf("write settings of fast path: %w", err)
	}
	return nil
}

func conntrackTimeout(name string) (uint32, error) {
	text, err := os.ReadFile(filepath.Join("/proc/sys/net/netfilter", "nf_conntrack_"+name))
	if err != nil {
		return 0, fmt.Errorf("read timeout of connection tracking: %w", err)
	}
	seconds, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("read timeout of connection tracking: %w", err)
	}
	return uint32(min(seconds, longest)), nil
}
