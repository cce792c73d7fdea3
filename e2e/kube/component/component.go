// Package component runs the components of Kubernetes for tests: real programs, each
// with a log.
package component

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

// StartLimit bounds the wait for a component to answer. Under load an API server takes
// ten seconds.
const StartLimit = 2 * time.Minute

// logEnd is how much of a log a failed test shows.
const logEnd = 2000

// Set are the running components of a host. Its methods are for the test's own
// goroutine.
type Set struct {
	t       testing.TB
	dir     string // of the logs
	running map[string]*netnstest.Cmd
}

// NewSet returns a Set without components, with logs in a folder. The end of the test
// kills those that run then.
func NewSet(t testing.TB, dir string) *Set {
	s := &Set{t: t, dir: dir, running: make(map[string]*netnstest.Cmd)}
	t.Cleanup(func() {
		for name := range s.running {
			s.Kill(name)
		}
	})
	return s
}

// Start starts a component. Its log is appended to that of before.
func (s *Set) Start(name string, cmd *netnstest.Cmd) {
	s.t.Helper()
	log, err := os.OpenFile(s.log(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v", name, err)
	}
	s.running[name] = cmd
}

// Kill ends a component as a power cut does.
func (s *Set) Kill(name string) {
	s.t.Helper()
	cmd := s.running[name]
	if cmd == nil {
		return
	}
	delete(s.running, name)
	if err := cmd.Kill(); err != nil {
		s.t.Errorf("end %s: %v", name, err)
	}
	_ = cmd.Wait() // its exit is no news
	if s.t.Failed() {
		s.t.Logf("the end of the log of %s:\n%s", name, End(s.log(name)))
	}
}

// End returns the end of a log, or why it cannot be read.
func End(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-logEnd):])
}

func (s *Set) log(name string) string { return filepath.Join(s.dir, name+".log") }
