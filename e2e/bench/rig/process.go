package rig

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

// leaveLimit is how long a program may take to end.
const leaveLimit = 10 * time.Second

// process is a program at work on a host.
type process struct {
	cmd   *netnstest.Cmd
	ended chan struct{} // closed when cmd has been waited for
}

// launch starts cmd, out of Ctrl-C's reach: that is for the benchmark alone.
func launch(cmd *netnstest.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // its log tells more
	}()
	return p, nil
}

// stop ends the program as systemd does. Of nil it does nothing.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end process: %w", err)
	}
	timer := time.NewTimer(leaveLimit)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
		err := p.cmd.Process.Kill()
		<-p.ended
		return errors.Join(errors.New("it does not leave and was killed"), err)
	}
}
