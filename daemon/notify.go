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

// statusEvery is how often systemd is told what the program does, where no
// watchdog asks for more.
const statusEvery = 5 * time.Second

// attendSystemd tells systemd, until ctx ends, what the program does ("systemctl
// status" shows it), and that it is alive, at least twice in each WatchdogSec=
// (sd_watchdog_enabled(3)). Without systemd it only waits.
func (d *daemon) attendSystemd(ctx context.Context) error {
	watchdog, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read WATCHDOG_USEC: %w", err)
	}
	if os.Getenv(notifyVariable) == "" {
		<-ctx.Done()
		return nil
	}
	every := statusEvery
	if watchdog > 0 {
		every = min(every, watchdog/2)
	}
	next := func() <-chan time.Time { return time.After(clock.UntilTick(every)) }
	attend(ctx, next, d.condition, func(state string) {
		if d.WasReady() { // again, lest it was lost; systemd minds only the first
			state += "\n" + sd.SdNotifyReady
		}
		if watchdog > 0 {
			state += "\n" + sd.SdNotifyWatchdog
		}
		notifySystemd(state)
	})
	notifySystemd(sd.SdNotifyStopping)
	return nil
}

// attend calls tell with the condition now and whenever it is time again. To
// learn the condition takes every lock of control and data plane. So while one
// of them hangs nobody is told anything, and the watchdog restarts the program.
// That etcd or a peer is away is no reason to: packets go on, and a restart
// would bring neither back.
func attend(ctx context.Context, next func() <-chan time.Time, condition func() string, tell func(string)) {
	for {
		tell("STATUS=" + condition())
		select {
		case <-ctx.Done():
			return
		case <-next():
		}
	}
}

// condition is one line on what the program does.
func (d *daemon) condition() string {
	o := d.outline()
	switch {
	case len(o.NotReady) > 0:
		return o.NotReady[0]
	case !o.Store.Reachable:
		return fmt.Sprintf("subnet %v, %d peers; store not reachable since %s", o.Lease.Subnet, o.peers, o.Store.Since.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("subnet %v, %d peers, data path %s", o.Lease.Subnet, o.peers, o.dataPath)
}

// notifyVariable names systemd's socket; it is not set without systemd.
const notifyVariable = "NOTIFY_SOCKET"

// notifyLimit is how long a message to systemd may wait for room in its queue.
// A systemd that does not read must hold up neither the program nor its end.
const notifyLimit = 250 * time.Millisecond

// notifySystemd sends one message (sd_notify(3)), if systemd is there. That of
// go-systemd waits without limit. Only a systemd that hangs or went away refuses
// it, and it will learn all when it is back.
func notifySystemd(state string) {
	addr := &net.UnixAddr{Name: os.Getenv(notifyVariable), Net: "unixgram"}
	if addr.Name == "" {
		return
	}
	conn, err := net.DialUnix(addr.Net, nil, addr)
	if err != nil {
		ratelog.Errorf("notify systemd: %v", err)
		return
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(notifyLimit)); err != nil {
		ratelog.Errorf("notify systemd: %v", err)
		return
	}
	if _, err := conn.Write([]byte(state)); err != nil {
		ratelog.Errorf("notify systemd: %v", err)
	}
}
