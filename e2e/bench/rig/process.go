package rig

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

// stopTimeout bounds the end of a program.
const stopTimeout = 10 * time.Second

// process is a running program on a host.
type process struct {
	cmd   *netnstest.Cmd
	ended chan struct{} // closed after cmd.Wait
}

// launch starts cmd in a process group of its own, so that Ctrl-C reaches only the
// benchmark.
func launch(cmd *netnstest.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // its log has the reason
	}()
	return p, nil
}

// stop ends the program as systemd does. A nil process has ended.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end process: %w", err)
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
		err := p.cmd.Process.Kill()
		<-p.ended
		return errors.Join(errors.New("it did not end and was killed"), err)
	}
}
