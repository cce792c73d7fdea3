package clock

import (
	"testing"
	"time"
)

// What is written for a reboot is written again when the wall clock was set.
func TestTimestampStepped(t *testing.T) {
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	before := Timestamp{"boot", time.Hour, noon}
	for name, test := range map[string]struct {
		now  Timestamp
		want bool
	}{
		"time passed":      {Timestamp{"boot", 2 * time.Hour, noon.Add(time.Hour)}, false},
		"a little astray":  {Timestamp{"boot", 2 * time.Hour, noon.Add(time.Hour + time.Second)}, false},
		"clock set":        {Timestamp{"boot", 2 * time.Hour, noon.Add(2 * time.Hour)}, true},
		"clock set back":   {Timestamp{"boot", 2 * time.Hour, noon}, true},
		"of another boot":  {Timestamp{"another", 2 * time.Hour, noon.Add(time.Hour)}, true},
		"never written so": {Timestamp{"boot", 0, noon}, false},
	} {
		since := before
		if name == "never written so" {
			since, test.want = Timestamp{}, true
		}
		if got := test.now.Stepped(since); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
