package ratelog

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l limiter
		var mu sync.Mutex // counts come from timers
		var logged []string
		logf := func(format string, args ...any) {
			l.logf(func(_ int, args ...any) {
				mu.Lock()
				defer mu.Unlock()
				logged = append(logged, fmt.Sprint(args...))
			}, format, args)
		}
		expect := func(step string, want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(logged, want) {
				t.Errorf("%s: logged %q, want %q", step, logged, want)
			}
			logged = nil
		}
		for range 38 {
			logf("fault reason=%q", "a")
			time.Sleep(time.Second) // of the bubble's clock
		}
		logf("other")
		expect("first", `fault reason="a"`, "other")
		time.Sleep(window)
		expect("count", `fault reason="a": repeated 37 times in 60 s`)
		logf("fault reason=%q", "a")
		expect("again", `fault reason="a"`)
		for peer := range 1000 {
			logf("skip peer=%d", peer)
		}
		expect("many", "skip peer=0", "skip peer=1", "skip peer=2", "skip peer=3", "skip peer=4",
			"skip peer=5", "skip peer=6", "skip peer=7", "skip peer=8", "skip peer=9")
		time.Sleep(window)
		expect("count of many", "skip peer=999: repeated 990 times in 60 s")
		time.Sleep(10 * window)
		expect("silence")
		if len(l.windows) != 0 {
			t.Errorf("it keeps %d windows", len(l.windows))
		}
	})
}
