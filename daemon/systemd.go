package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/ratelog"
)

const (
	// statusInterval is how often systemd gets the status line, unless the watchdog
	// needs it more often.
	statusInterval = 5 * time.Second
	// notifyVariable names systemd's socket; it is not set without systemd.
	notifyVariable = "NOTIFY_SOCKET"
	// notifyTimeout is how long a message may wait for room in systemd's queue. A
	// systemd that does not read must not delay the daemon.
	notifyTimeout = 250 * time.Millisecond
)

// systemd sends the status line, which "systemctl status" shows, and feeds the
// watchdog (WatchdogSec=, sd_watchdog_enabled(3)).
type systemd struct {
	statusLine func() string
	ready      func() bool
	notify     func(message string)
}

func newSystemd(statusLine func() string, ready func() bool) *systemd {
	return &systemd{statusLine: statusLine, ready: ready, notify: notifySystemd}
}

// Run sends messages until ctx ends, at least two in each WatchdogSec=. Without
// systemd it only waits.
//
// The status line takes every lock of control plane and data plane. While one of
// them hangs, no message leaves, and the watchdog restarts the daemon. A store or a
// peer that is away is no reason for that: packets go on, and a restart would
// bring neither back.
func (s *systemd) Run(ctx context.Context) error {
	watchdog, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read WATCHDOG_USEC: %w", err)
	}
	if os.Getenv(notifyVariable) == "" {
		<-ctx.Done()
		return nil
	}
	interval := statusInterval
	if watchdog > 0 {
		interval = min(interval, watchdog/2)
	}
	for {
		message := "STATUS=" + s.statusLine()
		if s.ready() { // repeated in case it was lost; systemd acts on the first only
			message += "\n" + sd.SdNotifyReady
		}
		if watchdog > 0 {
			message += "\n" + sd.SdNotifyWatchdog
		}
		s.notify(message)
		select {
		case <-ctx.Done():
			s.notify(sd.SdNotifyStopping)
			return nil
		case <-time.After(clock.UntilTick(interval)):
		}
	}
}

// notifySystemd sends one message (sd_notify(3)) if systemd is there. Unlike
// go-systemd's SdNotify, it waits for notifyTimeout at most. A message that cannot
// be sent is logged; the next one repeats its content.
func notifySystemd(message string) {
	addr := &net.UnixAddr{Name: os.Getenv(notifyVariable), Net: "unixgram"}
	if addr.Name == "" {
		return
	}
	conn, err := net.DialUnix(addr.Net, nil, addr)
	if err == nil {
		defer conn.Close()
		err = conn.SetWriteDeadline(time.Now().Add(notifyTimeout))
	}
	if err == nil {
		_, err = conn.Write([]byte(message))
	}
	if err != nil {
		ratelog.Errorf("notify systemd: %v", err)
	}
}
