package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

var configCommand = command{
	name: "config", args: "get | set CONFIG | check [CONFIG]", summary: "print, check or change the network configuration in etcd",
	detail: "CONFIG is a CIDR, the whole JSON object, or @FILE; @- is standard input. Without CONFIG, check reads etcd.\n" +
		"set writes a configuration only if it passes the check, and only over the one that it has printed the changes to.",
	json: "print JSON: the configuration with its defaults; for set, the changes",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		s := newStoreFlags(fs)
		return func(ctx context.Context, args []string) error {
			read := func(print func(text []byte) error) error {
				return s.do(ctx, nil, func(ctx context.Context, st store.Store) error {
					text, err := st.Config(ctx)
					if err != nil {
						return err
					}
					return print(text)
				})
			}
			check := func(text []byte) error { return checkConfig(p, text) }
			switch {
			case len(args) == 1 && (args[0] == "check" || args[0] == "get" && p.json):
				return read(check)
			case len(args) == 1 && args[0] == "get":
				return read(func(text []byte) error {
					_, err := fmt.Fprintf(p.Stdout, "%s\n", bytes.TrimSpace(text))
					return err
				})
			case len(args) == 2 && (args[0] == "check" || args[0] == "set"):
				text, err := configText(args[1])
				if err != nil {
					return err
				}
				if args[0] == "check" {
					return check(text)
				}
				c, err := subnet.ParseConfig(text)
				if err != nil {
					return fmt.Errorf("check configuration: %w", err)
				}
				return s.do(ctx, text, func(ctx context.Context, st store.Store) error { return setConfig(ctx, p, st, text, c) })
			}
			return flag.ErrHelp
		}
	},
}

// configText returns the JSON of a CONFIG argument.
func configText(arg string) ([]byte, error) {
	if name, isFile := strings.CutPrefix(arg, "@"); isFile {
		f := os.Stdin
		if name != "-" {
			var err error
			if f, err = os.Open(name); err != nil {
				return nil, err
			}
			defer f.Close()
		}
		text, err := io.ReadAll(io.LimitReader(f, 1<<20))
		return bytes.TrimSpace(text), err
	}
	return subnet.ConfigText(arg), nil
}

// checkConfig prints the meaning of a configuration if it is valid.
func checkConfig(p *Program, text []byte) error {
	c, err := subnet.ParseConfig(text)
	if err != nil {
		return fmt.Errorf("check configuration: %w", err)
	}
	var ranges []string
	for _, f := range c.Families() {
		r := c.RangeOf(f)
		ranges = append(ranges, fmt.Sprintf("network %v, subnets /%d from %v to %v", r.Network, r.SubnetLen, r.SubnetMin, r.SubnetMax))
	}
	return p.print(c, "ok: %s, backend %s\n", strings.Join(ranges, "; "), c.BackendType)
}

// configChange is the output of "config set -json".
type configChange struct {
	Changed bool           `json:"changed"`
	Changes []string       `json:"changes"` // e.g. "SubnetLen: 24 -> 25"
	Config  *subnet.Config `json:"config"`
}

// setConfig replaces the configuration. It is an error if another client changes
// it at the same time.
func setConfig(ctx context.Context, p *Program, st store.Store, text []byte, c *subnet.Config) error {
	old, err := st.Config(ctx)
	if err != nil {
		return err
	}
	change := configChange{Changed: true, Changes: []string{}, Config: c}
	if st.Published {
		return p.print(change, "written; the store had no configuration\n")
	}
	if bytes.Equal(old, text) {
		change.Changed = false
		return p.print(change, "the store has this configuration already\n")
	}
	before, err := subnet.ParseConfig(old)
	if err != nil {
		change.Changes = append(change.Changes, fmt.Sprintf("replaces an invalid configuration: %v", err))
		before = new(subnet.Config)
	}
	for _, d := range before.Diff(c) {
		if d.Key != "Backend.Type" { // Backend shows it
			change.Changes = append(change.Changes, d.String())
		}
	}
	if err := st.ReplaceConfig(ctx, old, text); err != nil {
		return fmt.Errorf("replace configuration: %w", err)
	}
	effect := "no effective change"
	if len(change.Changes) > 0 {
		effect = strings.Join(change.Changes, "\n")
	}
	return p.print(change, "%s\nwritten; running daemons apply SubnetMin, SubnetMax and a family that is turned on or off now, and the other keys at their next start\n", effect)
}
