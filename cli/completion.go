package cli

import (
	"context"
	"flag"
	"fmt"
	"strings"
)

var completionCommand = command{
	name: "completion", args: "bash|zsh", summary: "print a completion script for a shell",
	detail: "Usage: source <(flannel completion bash). The packages install it for both shells.",
	prepare: func(p *Program, _ *flag.FlagSet) action {
		return func(_ context.Context, args []string) error {
			scripts := map[string]func(*Program) error{"bash": bashCompletion, "zsh": zshCompletion}
			if len(args) != 1 || scripts[args[0]] == nil {
				return flag.ErrHelp
			}
			return scripts[args[0]](p)
		}
	},
}

// argWords are the fixed words among a command's arguments.
var argWords = map[string]string{"config": "get set check", "completion": "bash zsh"}

// bashCompletion prints a function that completes commands, flags and files.
func bashCompletion(p *Program) error {
	var names []string
	var cases strings.Builder
	for _, c := range p.commands {
		names = append(names, c.name)
		fs, _ := c.flags(p)
		fmt.Fprintf(&cases, "\t%s) words=%q ;;\n", c.name, strings.TrimSpace(argWords[c.name]+" "+flagWords(fs)))
	}
	all := strings.Join(names, " ")
	_, err := fmt.Fprintf(p.Stdout, `_flannel() {
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
	return err
}

// zshCompletion prints a script to source, or to install as _flannel in zsh's
// fpath.
func zshCompletion(p *Program) error {
	var cases strings.Builder
	describe := func(fs *flag.FlagSet) string {
		var b strings.Builder
		fs.VisitAll(func(f *flag.Flag) {
			_, usage := flag.UnquoteUsage(f)
			fmt.Fprintf(&b, " %s", quoteZsh("-"+f.Name, usage))
		})
		return b.String()
	}
	daemon := describe(p.DaemonFlags())
	var names strings.Builder
	for _, c := range p.commands {
		fmt.Fprintf(&names, "\t\t%s\n", quoteZsh(c.name, c.summary))
		fs, _ := c.flags(p)
		fmt.Fprintf(&cases, "\t%s) choices=(%s) flags=(%s) ;;\n", c.name, argWords[c.name], strings.TrimSpace(describe(fs)))
	}
	_, err := fmt.Fprintf(p.Stdout, `#compdef flannel
_flannel() {
	local -a commands choices flags
	local command=$words[2]
	commands=(
%s	)
	if (( CURRENT == 2 )); then
		command=''
	fi
	case $command in
	'')
		_describe command commands
		flags=(%s)
		;;
	help) choices=(${commands%%%%:*}) ;;
%s	*) flags=(%s) ;;
	esac
	if [[ $PREFIX == -* ]]; then
		_describe flag flags
	elif (( CURRENT == 3 && $#choices > 0 )); then
		compadd -a choices
	elif (( CURRENT > 2 )); then
		_files
	fi
}
if [[ $funcstack[1] == _flannel ]]; then
	_flannel "$@"
else
	compdef _flannel flannel
fi
`, names.String(), daemon, cases.String(), daemon)
	return err
}

// quoteZsh returns an element NAME:DESCRIPTION for zsh's _describe.
func quoteZsh(name, text string) string {
	return "'" + strings.ReplaceAll(name+":"+strings.ReplaceAll(text, ":", `\:`), "'", `'\''`) + "'"
}

func flagWords(fs *flag.FlagSet) string {
	var list []string
	fs.VisitAll(func(f *flag.Flag) { list = append(list, "-"+f.Name) })
	return strings.Join(list, " ")
}
