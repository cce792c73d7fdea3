package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"
)

// helpCommand is made by a function because it refers to the list that it is in.
func helpCommand() command {
	return command{
		name: "help", args: "[COMMAND]", summary: "say what the commands do",
		prepare: func(p *Program, _ *flag.FlagSet) action {
			return func(_ context.Context, args []string) error {
				switch len(args) {
				case 0:
					p.overview(p.Stdout)
					return nil
				case 1:
					c, known := find(args[0])
					if !known {
						return unknown(args[0])
					}
					c.usage(p, p.Stdout)
					return nil
				}
				return flag.ErrHelp
			}
		},
	}
}

var versionCommand = command{
	name: "version", summary: "print the version",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		asJSON := fs.Bool("json", false, "print JSON, with what it was built by and for")
		return func(context.Context, []string) error {
			if *asJSON {
				return printJSON(p.Stdout, versionJSON{p.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH})
			}
			_, err := fmt.Fprintln(p.Stdout, p.Version)
			return err
		}
	},
}

// versionJSON is what "version -json" prints.
type versionJSON struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func (p *Program) overview(w io.Writer) {
	fmt.Fprint(w, "Usage: flannel [flags]                        run the daemon (see flannel -help)\n"+
		"       flannel COMMAND [flags] [arguments]\n\nCommands:\n")
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, c := range commands() {
		fmt.Fprintf(t, "  %s\t%s\n", c.name, c.summary)
	}
	t.Flush()
	fmt.Fprintf(w, "\n\"flannel help COMMAND\" says more of one. Exit codes: %d done, %d failed or wrong input,\n"+
		"%d the answer is no: not ready, a check failed, no reply.\n", exitOK, exitFailed, exitNo)
}

func (c command) usage(p *Program, w io.Writer) {
	fs, _ := c.flags(p)
	flags := 0
	fs.VisitAll(func(*flag.Flag) { flags++ })
	line := "flannel " + c.name
	if flags > 0 {
		line += " [flags]"
	}
	if c.args != "" {
		line += " " + c.args
	}
	fmt.Fprintf(w, "Usage: %s\n\nflannel %s: %s.\n", line, c.name, c.summary)
	if c.detail != "" {
		fmt.Fprintf(w, "%s\n", c.detail)
	}
	if flags > 0 {
		fmt.Fprint(w, "\nFlags:\n")
		fs.SetOutput(w)
		fs.PrintDefaults()
	}
}
