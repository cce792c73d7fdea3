package status

import (
	"fmt"
	"testing"
)

func TestEventLogDropsTheOldest(t *testing.T) {
	var l EventLog
	for i := range capacity + 5 {
		l.Add(fmt.Sprint(i))
	}
	got := l.Recent()
	if len(got) != capacity || got[0].Text != fmt.Sprint(capacity+4) || got[capacity-1].Text != "5" {
		t.Errorf("%d events, from %q to %q", len(got), got[0].Text, got[len(got)-1].Text)
	}
}
