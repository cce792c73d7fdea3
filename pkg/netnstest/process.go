package netnstest

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// Process is a running program in a process group of its own, so that Ctrl-C does
// not reach it.
type Process struct {
	*Cmd  // Stop, not the caller, waits for it
	ended chan struct{}
}

// Launch starts the program, which Stop ends.
func (c *Cmd) Launch() (*Process, error) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		return nil, err
	}
	p := &Process{c, make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = p.Wait() // the program's log has the reason
	}()
	return p, nil
}

// Ended is closed after the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Stop ends the program as systemd does: with SIGTERM, and after limit with SIGKILL,
// which is an error. A nil Process has ended.
func (p *Process) Stop(limit time.Duration) error {
	if p == nil {
		return nil
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end process: %w", err)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
		err := p.Process.Kill()
		<-p.ended
		return errors.Join(errors.New("it did not end and was killed"), err)
	}
}
