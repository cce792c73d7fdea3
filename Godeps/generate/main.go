// Command generate lists the modules in the flannel binary: each with its version
// and licence in Godeps/manifest.txt, and the licences' texts in
// Godeps/licenses.txt.
//
//	go run ./Godeps/generate          writes the two files
//	go run ./Godeps/generate -check   fails if they are not current
//
// The go command lists the program's packages on every platform of a release.
// generate looks for licence files in these packages' folders, in the module cache.
// A module without a known licence is an error.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/google/renameio/v2"
)

func main() {
	check := flag.Bool("check", false, "write nothing, fail if the files are not current")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *check); err != nil {
		fmt.Fprintf(os.Stderr, "generate: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, check bool) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	files, err := generate(ctx, root)
	if err != nil {
		return err
	}
	if check {
		return files.check(root)
	}
	return files.write(root)
}

// files are the generated files: path below the module's root to content.
type files map[string][]byte

// generate returns the files.
func generate(ctx context.Context, root string) (files, error) {
	modules, err := linked(ctx, root)
	if err != nil {
		return nil, err
	}
	for _, m := range modules {
		if err := m.findLicenses(); err != nil {
			return nil, err
		}
	}
	modules = append(modules, standardLibrary(modules))
	return files{
		filepath.Join("Godeps", "manifest.txt"): manifest(modules),
		filepath.Join("Godeps", "licenses.txt"): licenseTexts(modules),
	}, nil
}

func (f files) write(root string) error {
	for name, content := range f {
		if err := renameio.WriteFile(filepath.Join(root, name), content, 0o644); err != nil {
			return fmt.Errorf("write generated file: %w", err)
		}
	}
	return nil
}

func (f files) check(root string) error {
	var errs []error
	for name, want := range f {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("%s is not current; run: go run ./Godeps/generate", name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
