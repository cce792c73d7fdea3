package main

import (
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/coreos/flannel/pkg/envflag"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"flannel": main})
}

// The scripts in testdata run the command line as an operator would.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			for _, v := range os.Environ() {
				if strings.HasPrefix(v, envflag.Prefix) {
					name, _, _ := strings.Cut(v, "=")
					env.Setenv(name, "")
				}
			}
			return nil
		},
	})
}
