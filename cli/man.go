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

// manCommand is made by a function because it refers to the list that it is in.
func manCommand() command {
	return command{
		name: "man", summary: "print the manual page",
		detail: "It is made from the flags and commands of this very program. Read it with: flannel man | man -l -",
		prepare: func(p *Program, _ *flag.FlagSet) action {
			return func(context.Context, []string) error { return p.manual(p.Stdout) }
		},
	}
}

// roffWidth is where lines of the source end, in bytes; mandoc's lint wants 80.
const roffWidth = 78

// roff makes text a paragraph's source: no escapes, and no line that is a
// request. The minus of an option stays an ASCII one, which can be copied
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

// manual writes the manual page, in the macros of man(7).
func (p *Program) manual(w io.Writer) error {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`.\" Made by "flannel man" from the flags and the commands.`)
	line(`.TH FLANNEL 8 "%s" "flannel %s" "System Administration"`, manualDate().Format(time.DateOnly), p.Version)
	line(".SH NAME\nflannel \\- a subnet for this host, and its way to the others")
	line(".SH SYNOPSIS\n.B flannel\n.RI [ flags ]\n.br\n.B flannel\n.I command\n.RI [ flags ]\n.RI [ arguments ]")
	line(".SH DESCRIPTION\n%s", roff(`flannel gives every host a subnet of one shared network, and carries packets between containers on different
hosts. Who has which subnet is written down in etcd. Alone, or with flags, it is the daemon; with a command's name
behind it, it answers that command and ends.`))
	line(".PP\n%s", roff("The network's configuration is one JSON object in etcd, at <prefix>/config; only Network is mandatory:"))
	line(".PP\n.RS\n.nf\n%s\n.fi\n.RE", roff(`{"Network": "10.5.0.0/16", "Backend": {"Type": "udp"}}`))
	line(".SH OPTIONS\nThese are the daemon's. Each takes one dash or two.")
	flagEntries(&b, p.DaemonFlags())
	line(".SH COMMANDS\n%s", roff("Flags that a command shares with the daemon mean the same, and are listed above."))
	daemon := p.DaemonFlags()
	for _, c := range commands() {
		line(".SS flannel %s", roff(strings.TrimSpace(c.name+" "+c.args)))
		text := strings.ToUpper(c.summary[:1]) + c.summary[1:] + "."
		if c.detail != "" {
			text += "\n" + c.detail
		}
		line("%s", roff(text))
		fs, _ := c.flags(p)
		own := flag.NewFlagSet(c.name, flag.ContinueOnError)
		var shared []string
		fs.VisitAll(func(f *flag.Flag) {
			if twin := daemon.Lookup(f.Name); twin != nil && twin.Usage == f.Usage {
				shared = append(shared, `\fB`+roff("-"+f.Name)+`\fR`)
				return
			}
			own.Var(f.Value, f.Name, f.Usage)
			own.Lookup(f.Name).DefValue = f.DefValue
		})
		flagEntries(&b, own)
		if shared != nil {
			line(".PP\nFlags shared with the daemon:\n%s.", strings.Join(shared, ",\n"))
		}
	}
	line(".SH ENVIRONMENT\n%s", roff(fmt.Sprintf(`Each flag is also a variable: %s and its name in capitals with _ for -. %s is -etcd-prefix. The
command line wins.`, envflag.Prefix, envflag.Name("etcd-prefix"))))
	line(".TP\n.B NO_COLOR\n%s", roff("If it is set, commands print no colour, which they do on a terminal only."))
	line(".SH FILES")
	for _, f := range [][2]string{
		{"/run/flannel/subnet.env", "the subnet, for Docker and others"},
		{"/run/flannel/subnet.sock", "how flannel rekey tells the daemon"},
		{"/etc/default/flannel", "variables for the systemd unit"},
		{"/var/lib/flannel", "what must outlive a reboot"},
	} {
		line(".TP\n.I %s\n%s", roff(f[0]), roff(f[1]))
	}
	line(".SH EXIT STATUS")
	for _, e := range [][2]string{
		{"0", "The command is done; the daemon was ended by a signal."},
		{"1", "Wrong input, or the question could not be answered; the daemon could not start."},
		{"2", "The daemon failed while running."},
		{"3", "The question was answered, and the answer is no: not ready, a check failed, no reply."},
	} {
		line(".TP\n.B %s\n%s", e[0], roff(e[1]))
	}
	line(".SH SEE ALSO\n%s", roff("https://github.com/coreos/flannel"))
	_, err := io.WriteString(w, b.String())
	return err
}

// manualDate is the page's: today, or the one that a build which wants the same
// packages from the same source says (https://reproducible-builds.org).
func manualDate() time.Time {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return time.Now()
	}
	return time.Unix(seconds, 0).UTC()
}

// flagEntries writes an entry for each flag.
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
