package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// platforms are the platforms of a release, as GOOS/GOARCH.
var platforms = []string{"linux/amd64", "linux/arm64"}

// module is a module with its used packages.
type module struct {
	path, version string
	dir           string
	packages      []string // folders
	licenses      []license
}

// listed is a package in the output of go list.
type listed struct {
	ImportPath, Dir                    string
	Imports, TestImports, XTestImports []string
	Module                             *struct {
		Path, Version, Dir string
		Main               bool
	}
}

// moduleRoot returns the folder of go.mod.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := goCommand(ctx, ".", platforms[0], "env", "GOMOD")
	if err != nil {
		return "", err
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// linked returns the modules in the program, without our own, in order of their
// paths.
func linked(ctx context.Context, root string) ([]*module, error) {
	var all []listed
	for _, p := range platforms {
		packages, err := list(ctx, root, p, "-deps", ".")
		if err != nil {
			return nil, err
		}
		all = append(all, packages...)
	}
	return group(all), nil
}

// direct returns the modules that our packages, tests and tools import.
func direct(ctx context.Context, root string) ([]*module, error) {
	var imports []string
	for _, p := range platforms {
		packages, err := list(ctx, root, p, "./...")
		if err != nil {
			return nil, err
		}
		for _, l := range packages {
			imports = slices.Concat(imports, l.Imports, l.TestImports, l.XTestImports)
		}
	}
	tools, err := goCommand(ctx, root, platforms[0], "list", "tool")
	if err != nil {
		return nil, err
	}
	imports = append(imports, strings.Fields(string(tools))...)
	slices.Sort(imports)
	imports = slices.DeleteFunc(slices.Compact(imports), func(path string) bool { return path == "C" })
	packages, err := list(ctx, root, platforms[0], append([]string{"-find"}, imports...)...)
	if err != nil {
		return nil, err
	}
	return group(packages), nil
}

// group returns the modules of packages, without our own and the standard library.
func group(packages []listed) []*module {
	byPath := make(map[string]*module)
	for _, l := range packages {
		if l.Module == nil || l.Module.Main {
			continue
		}
		m := byPath[l.Module.Path]
		if m == nil {
			m = &module{path: l.Module.Path, version: l.Module.Version, dir: l.Module.Dir}
			byPath[m.path] = m
		}
		m.packages = append(m.packages, l.Dir)
	}
	var modules []*module
	for _, m := range byPath {
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b *module) int { return strings.Compare(a.path, b.path) })
	return modules
}

// list runs go list for a platform.
func list(ctx context.Context, root, platform string, args ...string) ([]listed, error) {
	args = append([]string{"list", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,Module"}, args...)
	out, err := goCommand(ctx, root, platform, args...)
	if err != nil {
		return nil, err
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("decode output of go list: %w", err)
		}
		all = append(all, l)
	}
}

func goCommand(ctx context.Context, dir, platform string, args ...string) ([]byte, error) {
	goos, goarch, _ := strings.Cut(platform, "/")
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run go %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
