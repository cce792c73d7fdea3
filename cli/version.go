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
			return p.print(struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{p.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH}, "%s\n", p.Version)
		}
	},
}
