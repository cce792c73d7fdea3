package cli

import (
	"context"
	"flag"
	"fmt"
	"runtime"
)

var versionCommand = command{
	name: "version", summary: "print the version",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		asJSON := fs.Bool("json", false, "print JSON, with the Go version and the platform")
		return func(context.Context, []string) error {
			if *asJSON {
				return printJSON(p.Stdout, versionJSON{p.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH})
			}
			_, err := fmt.Fprintln(p.Stdout, p.Version)
			return err
		}
	},
}

// versionJSON is the output of "version -json".
type versionJSON struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}
