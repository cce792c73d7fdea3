package cli

import (
	"flag"
	"fmt"
	"net/netip"
)

// parseMixed parses flags before, between and after the arguments, and returns
// the arguments.
func parseMixed(fs *flag.FlagSet, line []string) (args []string, err error) {
	for {
		if err := fs.Parse(line); err != nil || fs.NArg() == 0 {
			return args, err
		}
		args, line = append(args, fs.Arg(0)), fs.Args()[1:]
	}
}

func parseSubnet(s string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(s)
	if err != nil || n != n.Masked() {
		return n, fmt.Errorf("%q is not a subnet such as 10.5.72.0/24 or fd00:5:0:48::/64", s)
	}
	return n, nil
}
