package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// elsewhere are packages whose tests make network namespaces and see no difference
// between kernels, each with the reason.
var elsewhere = map[string]string{
	"cni/reservation": "files",
	"pkg/subnetfile":  "files",
	"e2e/bench":       "figures",
	"e2e/bench/load":  "figures",
	"e2e/bench/rig":   "figures",
	"e2e/kube":        "servers of Kubernetes",
}

// Each package whose tests make network namespaces is tested on other kernels, or its
// row says why not.
func TestPackagesAreComplete(t *testing.T) {
	const tree, lab = "../..", "github.com/coreos/flannel/pkg/netnstest"
	users := make(map[string]bool)
	err := filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range f.Imports {
			if name, err := strconv.Unquote(i.Path.Value); err == nil && name == lab {
				rel, err := filepath.Rel(tree, filepath.Dir(path))
				if err != nil {
					return err
				}
				users[rel] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range slices.Sorted(maps.Keys(users)) {
		_, not := elsewhere[p]
		if is := slices.Contains(packages, p); is == not {
			t.Errorf("%s is among the packages: %v, and among those with a reason why not: %v", p, is, not)
		}
	}
	for p := range elsewhere {
		if !users[p] {
			t.Errorf("%s makes no network namespace, so it needs no reason", p)
		}
	}
}
