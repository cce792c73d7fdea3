package cli

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/coreos/flannel/pkg/atomicfile"
	"github.com/coreos/flannel/pkg/subnetfile"
)

var dockerOptsCommand = command{
	name: "docker-opts", summary: "write Docker's options for this host's subnet to a file",
	detail: "Options and file are those of mk-docker-opts.sh. Without -i and -c it writes both forms.",
	prepare: func(_ *Program, fs *flag.FlagSet) action {
		from := fs.String("f", defaultSubnetFile, "`file` that flannel writes the subnet to")
		to := fs.String("d", "/run/docker_opts.env", "`file` to write")
		single := fs.Bool("i", false, "write a variable for each option, e.g. DOCKER_OPT_MTU")
		combined := fs.Bool("c", false, "write all options into one variable")
		key := fs.String("k", "DOCKER_OPTS", "`name` of the variable with all options")
		noMasq := fs.Bool("m", false, "leave out --ip-masq, which very old versions of Docker lack")
		return func(context.Context, []string) error {
			if *key == "" || strings.ContainsAny(*key, "= \t\n\"'$") {
				return fmt.Errorf("-k %q is not a variable name", *key)
			}
			env, err := readSubnetFile(*from)
			if err != nil {
				return err
			}
			if !*single && !*combined {
				*single, *combined = true, true
			}
			return writeFile(*to, dockerOpts(env, *single, *combined, *key, !*noMasq))
		}
	},
}

func dockerOpts(env subnetfile.Env, single, combined bool, key string, masq bool) string {
	var text, all strings.Builder
	add := func(name, option string) {
		if single {
			fmt.Fprintf(&text, "%s=\"%s\"\n", name, option)
		}
		all.WriteString(" " + option)
	}
	if env.Subnet.IsValid() {
		add("DOCKER_OPT_BIP", "--bip="+subnetfile.FirstUsable(env.Subnet).String())
	}
	if env.IPv6Subnet.IsValid() { // Docker gives its bridge the first address
		add("DOCKER_OPT_IPV6", "--ipv6")
		add("DOCKER_OPT_FIXED_CIDR_V6", "--fixed-cidr-v6="+env.IPv6Subnet.String())
	}
	if masq { // by Docker, if not by flannel
		add("DOCKER_OPT_IPMASQ", fmt.Sprintf("--ip-masq=%t", !env.IPMasq))
	}
	if env.MTU > 0 {
		add("DOCKER_OPT_MTU", fmt.Sprintf("--mtu=%d", env.MTU))
	}
	if combined {
		fmt.Fprintf(&text, "%s=\"%s\"\n", key, all.String())
	}
	return text.String()
}

// writeFile writes text to path. A reader sees all of it or none.
func writeFile(path, text string) error {
	if i, err := os.Stat(path); err == nil && !i.Mode().IsRegular() { // /dev/stdout
		return os.WriteFile(path, []byte(text), 0o644)
	}
	if err := atomicfile.Write(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
