package command

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
)

// completionCommand is made by a function because it refers to the list that it
// is in.
func completionCommand() command {
	return command{
		name: "completion", args: "bash|zsh", summary: "print a completion script for a shell",
		detail: "Use it with: source <(flannel completion bash)",
		prepare: func(p *Program, _ *flag.FlagSet) action {
			return func(_ context.Context, args []string) error {
				if len(args) != 1 || args[0] != "bash" && args[0] != "zsh" {
					return flag.ErrHelp
				}
				if args[0] == "zsh" { // zsh reads bash's scripts, once told so
					fmt.Fprint(p.Stdout, "autoload -U +X bashcompinit && bashcompinit\n")
				}
				p.completion(p.Stdout)
				return nil
			}
		},
	}
}

// words are what may follow a command besides its flags.
var words = map[string]string{"config": "get set check", "completion": "bash zsh"}

func (p *Program) completion(w io.Writer) {
	var names []string
	var cases strings.Builder
	for _, c := range commands() {
		names = append(names, c.name)
		fs, _ := c.flags(p)
		fmt.Fprintf(&cases, "\t%s) words=%q ;;\n", c.name, strings.TrimSpace(words[c.name]+" "+flagWords(fs)))
	}
	all := strings.Join(names, " ")
	fmt.Fprintf(w, `_flannel() {
	local words cur=${COMP_WORDS[COMP_CWORD]}
	case ${COMP_WORDS[1]} in
	help) words=%q ;;
%s	*) words=%q ;;
	esac
	if [ "$COMP_CWORD" = 1 ]; then words=%q; fi
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _flannel flannel
`, all, cases.String(), flagWords(p.DaemonFlags()), all+" "+flagWords(p.DaemonFlags()))
}

func flagWords(fs *flag.FlagSet) string {
	var list []string
	fs.VisitAll(func(f *flag.Flag) { list = append(list, "-"+f.Name) })
	return strings.Join(list, " ")
}
