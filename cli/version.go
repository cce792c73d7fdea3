package cli

import (
	"context"
	"flag"
	"runtime"
)

var versionCommand = command{
	name: "version", summary: "print the version", json: "print JSON, with the Go version and the platform",
	prepare: func(p *Program, _ *flag.FlagSet) action {
		return func(context.Context, []string) error {
			return p.print(versionJSON{p.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH}, "%s\n", p.Version)
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
