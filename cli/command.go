package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Exit codes. Code 2 is the daemon's, see package main.
const (
	exitOK       = 0
	exitFailed   = 1 // wrong input, or the command has no answer
	exitNegative = 3 // the answer is negative: not ready, check failed, no reply
)

// errNegative is the result of a command that has printed a negative answer.
var errNegative = errors.New("negative answer")

// Program is the environment of a command.
type Program struct {
	Stdout, Stderr io.Writer
	Version        string
	// DaemonFlags returns the daemon's flags, for help and completion.
	DaemonFlags func() *flag.FlagSet

	commands []command // Run sets it
	json     bool      // -json
}

// print prints v if -json is given, else the text.
func (p *Program) print(v any, format string, args ...any) error {
	if p.json {
		return printJSON(p.Stdout, v)
	}
	_, err := fmt.Fprintf(p.Stdout, format, args...)
	return err
}

type command struct {
	name    string
	args    string // the arguments after the flags, e.g. "HOST|SUBNET"; empty: none
	summary string // one line for the list of commands
	detail  string // more for the command's own help; may be empty
	json    string // the help of -json; empty: the command has no such flag
	// prepare registers the other flags and returns the action that uses them.
	prepare func(p *Program, fs *flag.FlagSet) action
}

// action runs with the arguments that are not flags. Errors: errNegative;
// flag.ErrHelp for wrong arguments; else the cause of the failure.
type action func(ctx context.Context, args []string) error

func (c command) flags(p *Program) (*flag.FlagSet, action) {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // Parse returns the error that it prints
	fs.Usage = func() {}
	if c.json != "" {
		fs.BoolVar(&p.json, "json", false, c.json)
	}
	return fs, c.prepare(p, fs)
}

func (c command) usage(p *Program) {
	fs, _ := c.flags(p)
	line, flags := "flannel "+c.name, 0
	fs.VisitAll(func(*flag.Flag) { flags++ })
	if flags > 0 {
		line += " [flags]"
	}
	if c.args != "" {
		line += " " + c.args
	}
	fmt.Fprintf(p.Stdout, "Usage: %s\n\nflannel %s: %s.\n", line, c.name, c.summary)
	if c.detail != "" {
		fmt.Fprintf(p.Stdout, "%s\n", c.detail)
	}
	if flags > 0 {
		fmt.Fprint(p.Stdout, "\nFlags:\n")
		fs.SetOutput(p.Stdout)
		fs.PrintDefaults()
	}
}

// find returns the command of that name. The error suggests a command that
// shares more than half of the name's beginning.
func find(all []command, name string) (command, error) {
	i := slices.IndexFunc(all, func(c command) bool { return c.name == name })
	if i >= 0 {
		return all[i], nil
	}
	for n := len(name); n > len(name)/2; n-- {
		for _, c := range all {
			if n > len(c.name)/2 && strings.HasPrefix(c.name, name[:n]) {
				return command{}, fmt.Errorf("unknown command %q; did you mean %s? (see flannel help)", name, c.name)
			}
		}
	}
	return command{}, fmt.Errorf("unknown command %q (see flannel help)", name)
}
