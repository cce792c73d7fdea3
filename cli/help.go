package cli

import (
	"context"
	"flag"
	"fmt"
	"text/tabwriter"
)

var helpCommand = command{
	name: "help", args: "[COMMAND]", summary: "describe the commands",
	prepare: func(p *Program, _ *flag.FlagSet) action {
		return func(_ context.Context, args []string) error {
			switch len(args) {
			case 0:
				printOverview(p)
				return nil
			case 1:
				c, err := find(p.commands, args[0])
				if err != nil {
					return err
				}
				c.usage(p)
				return nil
			}
			return flag.ErrHelp
		}
	},
}

func printOverview(p *Program) {
	fmt.Fprint(p.Stdout, "Usage: flannel [flags]                        run the daemon (see flannel -help)\n"+
		"       flannel COMMAND [flags] [arguments]\n\nCommands:\n")
	t := tabwriter.NewWriter(p.Stdout, 0, 8, 2, ' ', 0)
	for _, c := range p.commands {
		fmt.Fprintf(t, "  %s\t%s\n", c.name, c.summary)
	}
	t.Flush()
	fmt.Fprintf(p.Stdout, "\n\"flannel help COMMAND\" describes one. Exit codes: %d done, %d failed or wrong input,\n"+
		"%d the answer is negative: not ready, a check failed, no reply.\n", exitOK, exitFailed, exitNegative)
}
