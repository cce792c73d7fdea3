// Package cli holds the commands of the binary other than the daemon, one file
// each. A command reads the daemon's HTTP status, the store, subnet.env and the
// kernel.
//
//	flannel NAME [flags] [arguments]
//
// A flag that a command shares with the daemon has the daemon's default and
// environment variable.
//
//	cli.go ─► a file for each command ─► command.go ─► format, parse, env, store, …
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/coreos/flannel/pkg/envflag"
	"github.com/coreos/flannel/subnet/store"
)

// commands returns all commands in the order of the help text.
func commands() []command {
	return []command{
		statusCommand, peersCommand, leasesCommand, configCommand, reserveCommand, releaseCommand,
		waitCommand, pingCommand, rekeyCommand, doctorCommand, cleanupCommand, dockerOptsCommand,
		cniConfCommand, addressesCommand, installCNICommand, installConfCommand, completionCommand, manCommand, versionCommand, helpCommand,
	}
}

// Arguments returns the arguments of a program of this name or path. A name that
// stands for a command puts the command's name first. The names are those that
// flannel's image has for the manifests that call them.
func Arguments(program string, args []string) []string {
	switch filepath.Base(program) {
	case "install-conf", "cp":
		return append([]string{installConfCommand.name}, args...)
	case "mk-docker-opts.sh":
		return append([]string{dockerOptsCommand.name}, args...)
	}
	return args
}

// Run runs the command args[0] with the other args, and returns the exit code.
func Run(ctx context.Context, main *Program, args []string) int {
	p := *main
	p.commands = commands()
	restore, err := silenceLog()
	if err != nil {
		return fail(&p, "", fmt.Errorf("silence the log: %w", err))
	}
	defer restore()
	name, line := args[0], args[1:]
	c, err := find(p.commands, name)
	if err != nil {
		return fail(&p, "", err)
	}
	fs, act := c.flags(&p)
	args, err = parseMixed(fs, line)
	if errors.Is(err, flag.ErrHelp) {
		c.usage(&p)
		return exitOK
	}
	if err == nil && c.args == "" && len(args) > 0 {
		err = fmt.Errorf("unexpected argument %q", args[0])
	}
	if err != nil {
		return fail(&p, name, fmt.Errorf("%w (see flannel help %s)", err, name))
	}
	if _, err := envflag.Set(fs, store.FlagAliases); err != nil {
		return fail(&p, name, err)
	}
	err = act(ctx, args)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errNegative):
		return exitNegative
	case errors.Is(err, flag.ErrHelp):
		err = fmt.Errorf("usage: flannel %s %s (see flannel help %s)", name, c.args, name)
	}
	return fail(&p, name, err)
}

// fail prints err as one line and returns the exit code.
func fail(p *Program, name string, err error) int {
	text := strings.ReplaceAll(err.Error(), "\n", "; ") // errors.Join separates by newlines
	fmt.Fprintf(p.Stderr, "%s: %s\n", strings.TrimSpace("flannel "+name), text)
	return exitFailed
}
