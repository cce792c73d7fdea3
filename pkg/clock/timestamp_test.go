package clock

import (
	"testing"
	"time"
)

// Only a wall clock that was set, or a reboot, makes a Timestamp out of date.
func TestTimestampStepped(t *testing.T) {
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	before := Timestamp{"boot", time.Hour, noon}
	for name, test := range map[string]struct {
		now  Timestamp
		want bool
	}{
		"time passed":    {Timestamp{"boot", 2 * time.Hour, noon.Add(time.Hour)}, false},
		"a second off":   {Timestamp{"boot", 2 * time.Hour, noon.Add(time.Hour + time.Second)}, false},
		"clock set":      {Timestamp{"boot", 2 * time.Hour, noon.Add(2 * time.Hour)}, true},
		"clock set back": {Timestamp{"boot", 2 * time.Hour, noon}, true},
		"another boot":   {Timestamp{"another", 2 * time.Hour, noon.Add(time.Hour)}, true},
		"zero":           {Timestamp{"boot", 0, noon}, false},
	} {
		since := before
		if name == "zero" {
			since, test.want = Timestamp{}, true
		}
		if got := test.now.Stepped(since); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
