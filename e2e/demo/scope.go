package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
)

// scope is the demo's life: what was made is unmade at its end, last first,
// also after a failure. It is a netnstest.Scope.
type scope struct {
	errors   io.Writer
	cleanups []func()
	failed   bool
}

// do runs f in the scope and reports whether it came to its end.
func (s *scope) do(f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.end()
		f()
	}()
	<-done
	return !s.failed
}

func (s *scope) end() {
	for _, f := range slices.Backward(s.cleanups) {
		f()
	}
}

func (s *scope) Helper() {}

func (s *scope) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *scope) Logf(format string, args ...any) { fmt.Fprintf(s.errors, format+"\n", args...) }

func (s *scope) Fatalf(format string, args ...any) {
	s.failed = true
	s.Logf("demo: "+format, args...)
	runtime.Goexit()
}
