// Package envflag lets every flag be an environment variable as well: its name
// in capitals with _ for -, behind a prefix. -etcd-prefix is
// FLANNELD_ETCD_PREFIX. The command line wins.
package envflag

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
)

// Prefix begins the name of every variable.
const Prefix = "FLANNELD_"

// Name is the environment variable of a flag.
func Name(flag string) string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Set sets each flag of fs that its command line did not give from its
// variable, if that is not empty, and returns the names of all flags that are
// given. aliases are groups of flags that mean the same: one of them on the
// command line wins over all of them in the environment. Flags that except
// names are the command line's alone. Errors: what the flag says of the value.
func Set(fs *flag.FlagSet, aliases [][]string, except ...string) (map[string]bool, error) {
	given, shadowed := make(map[string]bool), make(map[string]bool)
	for _, name := range except {
		shadowed[name] = true
	}
	fs.Visit(func(f *flag.Flag) { given[f.Name], shadowed[f.Name] = true, true })
	for _, group := range aliases {
		for _, name := range group {
			if given[name] {
				for _, twin := range group {
					shadowed[twin] = true
				}
			}
		}
	}
	var errs []error
	fs.VisitAll(func(f *flag.Flag) {
		value := os.Getenv(Name(f.Name))
		if value == "" || shadowed[f.Name] {
			return
		}
		given[f.Name] = true
		if err := fs.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("invalid value %q for environment variable %s: %w", value, Name(f.Name), err))
		}
	})
	return given, errors.Join(errs...)
}
