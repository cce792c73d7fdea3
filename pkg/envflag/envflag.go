// Package envflag sets flags from environment variables. The variable of a flag is
// Prefix and the flag's name in capitals with _ for -: FLANNELD_ETCD_PREFIX for
// -etcd-prefix. The command line wins.
package envflag

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
)

// Prefix begins the name of each variable.
const Prefix = "FLANNELD_"

// Name returns the environment variable of a flag.
func Name(flag string) string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Set sets each flag of fs that the command line does not set from its variable,
// unless that is empty. It returns the names of all flags that are set. aliases
// are groups of flags with one meaning: one of them on the command line wins over
// all of them in the environment. Set reads no variables for the flags in except.
// The error joins those of all variables with invalid values.
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
		if strings.HasSuffix(value, "\r") {
			errs = append(errs, fmt.Errorf("invalid value %q for environment variable %s: it ends with a carriage return: give the file that sets it Unix line ends, as dos2unix does", value, Name(f.Name)))
			return
		}
		if err := fs.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("invalid value %q for environment variable %s: %w", value, Name(f.Name), err))
		}
	})
	return given, errors.Join(errs...)
}
