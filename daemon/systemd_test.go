package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// While the state of the program cannot be had, systemd hears nothing, and so
// its watchdog sees that something hangs.
func TestAttendIsSilentWhileStateHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		const every = time.Second
		ticks := time.NewTicker(every)
		defer ticks.Stop()
		hang := make(chan chan struct{}, 1) // the next condition waits for what it gets here
		n := 0
		condition := func() string {
			select {
			case until := <-hang:
				<-until
			default:
			}
			n++
			return fmt.Sprint(n)
		}
		var mu sync.Mutex
		var told []string
		done := make(chan struct{})
		go func() {
			attend(ctx, func() <-chan time.Time { return ticks.C }, condition, func(state string) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, state)
			})
			close(done)
		}()
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(told, want) {
				t.Fatalf("systemd was told %q, want %q", told, want)
			}
		}
		expect("STATUS=1") // at once
		time.Sleep(2 * every)
		expect("STATUS=1", "STATUS=2", "STATUS=3")
		release := make(chan struct{})
		hang <- release
		time.Sleep(10 * every)
		expect("STATUS=1", "STATUS=2", "STATUS=3")
		close(release)
		time.Sleep(every / 2)
		cancel()
		<-done
		if len(told) <= 3 {
			t.Error("systemd hears nothing of a program that goes on")
		}
	})
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
