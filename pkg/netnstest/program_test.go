package netnstest

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

func TestProgramScope(t *testing.T) {
	var log bytes.Buffer
	s := &Program{Log: &log}
	order := ""
	err := s.Do(func() error {
		s.Cleanup(func() { order += "second" })
		s.Cleanup(func() { order += "first " })
		s.Fatalf("no %s", "luck")
		return nil
	})
	if err == nil || err.Error() != "no luck" || order != "first second" {
		t.Errorf("%v, cleaned up %q", err, order)
	}
	if err := (&Program{}).Do(func() error { return context.Canceled }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want what the function returned", err)
	}
}
