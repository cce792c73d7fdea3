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

// kernelImports are those by which a package or its tests reach the kernel, with all
// packages below them.
var kernelImports = []string{
	"github.com/coreos/flannel/pkg/netnstest",
	"github.com/cilium/ebpf", "github.com/google/nftables", "github.com/vishvananda/netlink", "github.com/vishvananda/netns",
	"github.com/coreos/go-iptables", "golang.org/x/sys/unix",
}

// elsewhere are packages that reach the kernel and whose tests do not run on other kernels,
// each with the reason.
var elsewhere = map[string]string{
	"pkg/nftbatch":                 "messages",
	"pkg/tchook":                   "messages",
	"subnet/embed":                 "files and TCP",
	"subnet/kube":                  "TCP",
	"subnet/subnettest/faultproxy": "TCP",
	"e2e/bench":                    "figures",
	"e2e/bench/load":               "figures",
	"e2e/bench/rig":                "figures",
	"e2e/bench/machine":            "figures",
	"e2e/kube":                     "servers of Kubernetes",
}

// Each package that reaches the kernel, by itself or by its tests, is tested on other
// kernels, or is elsewhere.
func TestPackagesAreComplete(t *testing.T) {
	const tree = "../.."
	tested, reaches := make(map[string]bool), make(map[string]bool)
	err := filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		dir, err := filepath.Rel(tree, filepath.Dir(path))
		if err != nil {
			return err
		}
		tested[dir] = tested[dir] || strings.HasSuffix(path, "_test.go")
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range f.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			reaches[dir] = reaches[dir] || err == nil && isKernelImport(name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(reaches, func(dir string, does bool) bool { return !does || !tested[dir] })
	for _, p := range slices.Sorted(maps.Keys(reaches)) {
		_, not := elsewhere[p]
		if is := slices.Contains(packages, p); is == not {
			t.Errorf("%s is among the packages: %v, and among those with a reason why not: %v", p, is, not)
		}
	}
	for _, p := range slices.Concat(packages, slices.Sorted(maps.Keys(elsewhere))) {
		if !reaches[p] {
			t.Errorf("%s has no tests, or does not reach the kernel, so it needs no entry", p)
		}
	}
}

func isKernelImport(name string) bool {
	return slices.ContainsFunc(kernelImports, func(i string) bool {
		return strings.HasPrefix(name+"/", i+"/")
	})
}
