// Package command holds what an operator asks of flannel from a shell: one file
// for each command of the binary. None of them is the daemon; what they know of
// it they learn as anybody could: from its HTTP status, from the store, from
// subnet.env and from the kernel.
//
//	flannel NAME [flags] [arguments]
//
// Every command has the daemon's flags for what it shares with it, with the
// same defaults and environment variables.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/coreos/flannel/pkg/envflag"
	"github.com/coreos/flannel/subnet/store"
)

// Exit codes. 2 is the daemon's, see package main.
const (
	exitOK     = 0
	exitFailed = 1 // wrong input, or the question could not be answered
	exitNo     = 3 // it was answered, and the answer is no: not ready, check failed, no reply
)

// errNo ends a command that has printed its answer, which is no.
var errNo = errors.New("no")

// Program is what the commands need of the program around them.
type Program struct {
	Stdout, Stderr io.Writer
	Version        string
	// DaemonFlags are the flags of the daemon, for help and completion.
	DaemonFlags func() *flag.FlagSet
	// Pinned are the devices of this network namespace with eBPF programs of ours.
	Pinned func() ([]string, error)
	// KernelPath says why the udp backend's kernel data path cannot be had here;
	// nil if it can.
	KernelPath func() error
}

// command is one of them.
type command struct {
	name string
	// args are the arguments after the flags, e.g. "HOST|SUBNET"; empty: none.
	args    string
	summary string // one line, for the list
	detail  string // for its own help; may be empty
	// prepare adds the flags and returns what runs after they are parsed.
	prepare func(p *Program, fs *flag.FlagSet) action
}

// action runs with the arguments that are not flags. Errors: errNo, flag.ErrHelp
// for arguments that make no sense, or what went wrong.
type action func(ctx context.Context, args []string) error

// commands in the order of the list.
func commands() []command {
	return []command{
		statusCommand, peersCommand, leasesCommand, configCommand, reserveCommand, releaseCommand,
		waitCommand, pingCommand, rekeyCommand, doctorCommand, cleanupCommand, dockerOptsCommand, cniConfCommand, completionCommand(), manCommand(), versionCommand, helpCommand(),
	}
}

// Run runs the command that args name and returns the exit code.
func Run(ctx context.Context, p *Program, args []string) int {
	c, known := find(args[0])
	if !known {
		return p.fail("", unknown(args[0]))
	}
	fs, act := c.flags(p)
	args, err := parseMixed(fs, args[1:])
	if errors.Is(err, flag.ErrHelp) {
		c.usage(p, p.Stdout)
		return exitOK
	}
	if err != nil {
		return p.fail(c.name, fmt.Errorf("%w (see flannel help %s)", err, c.name))
	}
	if c.args == "" && len(args) > 0 {
		return p.fail(c.name, fmt.Errorf("argument %q is too much (see flannel help %s)", args[0], c.name))
	}
	if _, err := envflag.Set(fs, store.FlagAliases); err != nil {
		return p.fail(c.name, err)
	}
	err = act(ctx, args)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errNo):
		return exitNo
	case errors.Is(err, flag.ErrHelp):
		return p.fail(c.name, fmt.Errorf("wants %s (see flannel help %s)", c.args, c.name))
	}
	return p.fail(c.name, err)
}

// parseMixed parses flags before, between and behind the arguments, and returns
// these.
func parseMixed(fs *flag.FlagSet, line []string) (args []string, err error) {
	for {
		if err := fs.Parse(line); err != nil || fs.NArg() == 0 {
			return args, err
		}
		args, line = append(args, fs.Arg(0)), fs.Args()[1:]
	}
}

func find(name string) (command, bool) {
	all := commands()
	i := slices.IndexFunc(all, func(c command) bool { return c.name == name })
	if i < 0 {
		return command{}, false
	}
	return all[i], true
}

// unknown names the command that may be meant: one of which more than half
// begins alike.
func unknown(name string) error {
	for n := len(name); n > len(name)/2; n-- {
		for _, c := range commands() {
			if n > len(c.name)/2 && strings.HasPrefix(c.name, name[:n]) {
				return fmt.Errorf("command %q is not known; is %s meant? (see flannel help)", name, c.name)
			}
		}
	}
	return fmt.Errorf("command %q is not known (see flannel help)", name)
}

func (c command) flags(p *Program) (*flag.FlagSet, action) {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // Parse's error says it all
	fs.Usage = func() {}
	return fs, c.prepare(p, fs)
}

func (p *Program) fail(name string, err error) int {
	text := strings.ReplaceAll(err.Error(), "\n", "; ") // of errors.Join
	fmt.Fprintf(p.Stderr, "%s: %s\n", strings.TrimSpace("flannel "+name), text)
	return exitFailed
}
