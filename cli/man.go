package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/flannel/pkg/envflag"
)

var manCommand = command{
	name: "man", summary: "print the manual page",
	detail: "The page is made from the flags and commands of this program. Read it with: flannel man | man -l -",
	prepare: func(p *Program, _ *flag.FlagSet) action {
		return func(context.Context, []string) error { return printManual(p) }
	},
}

// roffWidth is the length of the source's lines in bytes; mandoc -T lint allows 80.
const roffWidth = 78

// roff returns text as the source of a paragraph: no escapes, and no line that
// is a request. The minus of an option stays an ASCII one, which can be copied
// (groff_char(7)).
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "^", `\(ha`, "~", `\(ti`, "`", "\\`").Replace(text)
	var b strings.Builder
	length := 0
	for i, word := range strings.Fields(text) {
		if strings.HasPrefix(word, ".") || strings.HasPrefix(word, "'") {
			word = `\&` + word
		}
		switch {
		case i == 0:
		case length+1+len(word) > roffWidth:
			b.WriteString("\n")
			length = 0
		default:
			b.WriteString(" ")
			length++
		}
		b.WriteString(word)
		length += len(word)
	}
	return b.String()
}

// printManual prints the manual page, in the macros of man(7).
func printManual(p *Program) error {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	list := func(macro string, entries [][2]string) {
		for _, e := range entries {
			line(".TP\n.%s %s\n%s", macro, roff(e[0]), roff(e[1]))
		}
	}
	line(`.\" Made by "flannel man" from the flags and the commands.`)
	line(`.TH FLANNEL 8 "%s" "flannel %s" "System Administration"`, manualDate().Format(time.DateOnly), p.Version)
	line(".SH NAME\nflannel \\- a subnet for each host, and routes between them")
	line(".SH SYNOPSIS\n.B flannel\n.RI [ flags ]\n.br\n.B flannel\n.I command\n.RI [ flags ]\n.RI [ arguments ]")
	line(".SH DESCRIPTION\n%s", roff(`flannel gives each host a subnet of one network, and carries packets between containers on different
hosts. etcd holds the hosts' leases of subnets. Without arguments, or with flags only, flannel is the daemon; with the name of a
command, it runs that command.`))
	line(".PP\n%s", roff("The network's configuration is one JSON object in etcd, at <prefix>/config. Only Network is mandatory:"))
	line(".PP\n.RS\n.nf\n%s\n.fi\n.RE", roff(`{"Network": "10.5.0.0/16", "Backend": {"Type": "udp"}}`))
	line(".SH OPTIONS\nOptions of the daemon. Each takes one dash or two.")
	daemon := p.DaemonFlags()
	flagEntries(&b, daemon)
	line(".SH COMMANDS\n%s", roff("Flags that a command shares with the daemon are described above."))
	for _, c := range p.commands {
		commandSection(&b, p, c, daemon)
	}
	line(".SH ENVIRONMENT\n%s", roff(fmt.Sprintf(`Each flag is also a variable: %s and the flag's name in capitals with _ for -. %s is -etcd-prefix. The
command line wins.`, envflag.Prefix, envflag.Name("etcd-prefix"))))
	list("B", [][2]string{{"NO_COLOR", "If it is set, commands print no colour. Without it, they print colour on a terminal only."}})
	line(".SH FILES")
	list("I", [][2]string{
		{"/run/flannel/subnet.env", "the subnet, for Docker and others"},
		{"/run/flannel/subnet.sock", "the socket that flannel rekey sends its request to"},
		{"/etc/default/flannel", "variables for the systemd unit"},
		{"/var/lib/flannel", "state that outlives a reboot"},
	})
	line(".SH EXIT STATUS")
	list("B", [][2]string{
		{"0", "The command is done; the daemon was ended by a signal."},
		{"1", "The input is wrong, or the command has no answer; the daemon could not start."},
		{"2", "The daemon failed while running."},
		{"3", "The answer is negative: not ready, a check failed, no reply."},
	})
	line(".SH SEE ALSO\n%s", roff("https://github.com/coreos/flannel"))
	_, err := io.WriteString(p.Stdout, b.String())
	return err
}

// commandSection writes the section of a command. It describes only flags that
// the daemon has not.
func commandSection(b *strings.Builder, p *Program, c command, daemon *flag.FlagSet) {
	text := strings.ToUpper(c.summary[:1]) + c.summary[1:] + "."
	if c.detail != "" {
		text += "\n" + c.detail
	}
	fmt.Fprintf(b, ".SS flannel %s\n%s\n", roff(strings.TrimSpace(c.name+" "+c.args)), roff(text))
	fs, _ := c.flags(p)
	own := flag.NewFlagSet(c.name, flag.ContinueOnError)
	var shared []string
	fs.VisitAll(func(f *flag.Flag) {
		if twin := daemon.Lookup(f.Name); twin != nil && twin.Usage == f.Usage {
			shared = append(shared, `\fB\%`+roff("-"+f.Name)+`\fR`) // \% forbids hyphenation
			return
		}
		own.Var(f.Value, f.Name, f.Usage)
		own.Lookup(f.Name).DefValue = f.DefValue
	})
	flagEntries(b, own)
	if shared != nil {
		fmt.Fprintf(b, ".PP\nFlags shared with the daemon:\n%s.\n", strings.Join(shared, ",\n"))
	}
}

// manualDate returns the date of the page: SOURCE_DATE_EPOCH for reproducible
// builds (https://reproducible-builds.org), else today.
func manualDate() time.Time {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return time.Now()
	}
	return time.Unix(seconds, 0).UTC()
}

func flagEntries(b *strings.Builder, fs *flag.FlagSet) {
	fs.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(b, ".TP\n.BR %s", roff("-"+f.Name))
		if value != "" {
			fmt.Fprintf(b, " =\\fI%s\\fR", roff(value))
		}
		switch f.DefValue {
		case "", "0", "false", "0s":
		default:
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(b, "\n%s\n", roff(usage))
	})
}
