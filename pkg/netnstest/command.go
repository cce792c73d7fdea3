package netnstest

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"time"
)

// waitDelay bounds how long Wait reads the output of an ended process whose child
// holds its pipes open.
const waitDelay = 5 * time.Second

// Cmd is an [exec.Cmd] that runs inside a host.
type Cmd struct {
	*exec.Cmd
	host  *Host
	forks bool // the program that counts is the first child
}

// Command prepares a program to run inside the host. The end of ctx or of the lab
// kills it.
func (h *Host) Command(ctx context.Context, name string, args ...string) *Cmd {
	return h.command(exec.CommandContext(ctx, name, args...))
}

func (h *Host) command(c *exec.Cmd) *Cmd {
	c.WaitDelay = waitDelay
	return &Cmd{Cmd: c, host: h}
}

// Start starts the program. A child inherits the namespaces of the forking thread,
// which is the calling goroutine's.
func (c *Cmd) Start() error { return c.host.Do(c.Cmd.Start) }

// Run starts the program and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// CombinedOutput runs the program and returns what it wrote to either stream.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// Output runs the program and returns what it wrote to its standard output.
func (c *Cmd) Output() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// Exec runs a command line without quotes inside the host and returns what it wrote.
// Only the end of the lab kills it.
func (h *Host) Exec(command string) string {
	h.lab.scope.Helper()
	words := strings.Fields(command)
	out, err := h.command(exec.Command(words[0], words[1:]...)).CombinedOutput()
	h.check(err, "%s: %s", command, out)
	return string(out)
}
