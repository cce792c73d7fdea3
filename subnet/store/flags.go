package store

import (
	"flag"
	"fmt"
	"slices"

	"github.com/coreos/flannel/subnet/etcd"
)

// FlagAliases are flags of Flags with the same meaning.
var FlagAliases = etcd.FlagAliases

// Flags are the command-line flags that select a store, the same for the daemon
// and all commands.
type Flags struct {
	etcd.Flags
	API string
}

// Register adds the flags to fs, with their defaults.
func (f *Flags) Register(fs *flag.FlagSet) {
	f.Flags.Register(fs)
	fs.StringVar(&f.API, "etcd-api", APIAuto, "etcd API: 3, 2, or auto: the one whose keyspace holds <prefix>/config, 3 where both do")
}

// Complete reads the password file and checks all flags. It does not use the
// network.
func (f *Flags) Complete() error {
	if !slices.Contains([]string{APIAuto, API2, API3}, f.API) {
		return fmt.Errorf("-etcd-api %q is none of %s, %s, %s", f.API, APIAuto, API3, API2)
	}
	return f.Flags.Complete()
}

// Config returns the configuration for Open, which publishes nothing.
func (f *Flags) Config() Config { return Config{ClientConfig: f.ClientConfig, API: f.API} }
