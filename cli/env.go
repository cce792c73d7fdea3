package cli

import (
	"flag"
	"fmt"

	"github.com/coreos/flannel/pkg/subnetfile"
)

const defaultSubnetFile = "/run/flannel/subnet.env"

func subnetFileFlag(fs *flag.FlagSet) *string {
	return fs.String("subnet-file", defaultSubnetFile, "`file` that flannel writes the subnet to")
}

// readSubnetFile returns the daemon's subnet.env.
func readSubnetFile(path string) (subnetfile.Env, error) {
	env, err := subnetfile.Read(path)
	if err != nil {
		return env, fmt.Errorf("read subnet, is flannel ready? %w", err)
	}
	return env, nil
}
