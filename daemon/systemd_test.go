package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// While the status line hangs, systemd gets no message: its watchdog detects it.
func TestSystemdGetsNothingWhileStatusHangs(t *testing.T) {
	t.Setenv(notifyVariable, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("WATCHDOG_USEC", "2000000")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		const every = time.Second           // half of the watchdog's
		hang := make(chan chan struct{}, 1) // the next status line waits for the channel that it gets here
		n := 0
		var ready atomic.Bool
		s := newSystemd(func() string {
			select {
			case until := <-hang:
				<-until
			default:
			}
			n++
			return fmt.Sprint(n)
		}, ready.Load)
		var mu sync.Mutex
		var sent []string
		s.notify = func(message string) {
			mu.Lock()
			defer mu.Unlock()
			sent = append(sent, message)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(sent, want) {
				t.Fatalf("systemd got %q, want %q", sent, want)
			}
		}
		expect("STATUS=1\nWATCHDOG=1") // at once
		ready.Store(true)
		time.Sleep(2 * every)
		expect("STATUS=1\nWATCHDOG=1", "STATUS=2\nREADY=1\nWATCHDOG=1", "STATUS=3\nREADY=1\nWATCHDOG=1")
		release := make(chan struct{})
		hang <- release
		time.Sleep(10 * every)
		expect("STATUS=1\nWATCHDOG=1", "STATUS=2\nREADY=1\nWATCHDOG=1", "STATUS=3\nREADY=1\nWATCHDOG=1")
		close(release)
		time.Sleep(every / 2)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if len(sent) <= 4 || sent[len(sent)-1] != "STOPPING=1" {
			t.Errorf("systemd got %q", sent)
		}
	})
}

// Without systemd no message is made.
func TestWithoutSystemd(t *testing.T) {
	t.Setenv(notifyVariable, "")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		s := newSystemd(func() string { t.Error("a status line"); return "" }, func() bool { return true })
		s.notify = func(m string) { t.Errorf("sent %q", m) }
		if err := s.Run(ctx); err != nil || ctx.Err() == nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func TestWatchdogVariableIsChecked(t *testing.T) {
	t.Setenv("WATCHDOG_PID", "")
	t.Setenv("WATCHDOG_USEC", "soon")
	if err := newSystemd(nil, nil).Run(t.Context()); err == nil {
		t.Error("no error for a WATCHDOG_USEC that is no number")
	}
}

// TestNotifyEndsWithoutAReader fills the queue of a systemd that does not read.
func TestNotifyEndsWithoutAReader(t *testing.T) {
	addr := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"}
	systemd, err := net.ListenUnixgram(addr.Net, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", addr.Name)
	// The queue is net.unix.max_dgram_qlen long; the filler has no deadline to wait for.
	full, err := net.DialUnix(addr.Net, nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for err = nil; err == nil; _, err = full.Write([]byte("x")) {
		if err := full.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		notifySystemd("WATCHDOG=1")
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("a message waits without limit")
	}
}
