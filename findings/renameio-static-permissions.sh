#!/bin/sh
# renameio's WriteFile keeps the mode of a file that is there, in spite of
# WithStaticPermissions.
#
# Package:  github.com/google/renameio/v2 v2.0.2, from the Go module proxy.
# Expected: WithStaticPermissions(0644) gives the file this mode, as "calling Chmod() on the file
#           handle" would (option.go).
# Seen:     WriteFile adds WithExistingPermissions to the options (writefile.go), and
#           WithStaticPermissions does not end that. A file of mode 0600 keeps it. NewPendingFile
#           with the same option gives 0644.
# For us:   pkg/atomicfile writes by NewPendingFile; its test replaces a file of another mode.
#
# Exit code 0: as seen. 1: the behaviour has changed.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat >main.go <<'END'
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

// old makes a file of mode 0600 to be replaced.
func old(name string) string {
	path := filepath.Join(os.Args[1], name)
	check(os.WriteFile(path, []byte("old"), 0o600))
	return path
}

func mode(path string) os.FileMode {
	info, err := os.Stat(path)
	check(err)
	return info.Mode().Perm()
}

func main() {
	whole := old("whole")
	check(renameio.WriteFile(whole, []byte("new"), 0o644, renameio.WithStaticPermissions(0o644)))
	pending := old("pending")
	f, err := renameio.NewPendingFile(pending, renameio.WithStaticPermissions(0o644))
	check(err)
	_, err = f.WriteString("new")
	check(err)
	check(f.CloseAtomicallyReplace())
	fmt.Printf("WriteFile %04o, NewPendingFile %04o\n", mode(whole), mode(pending))
}
END
export GOFLAGS=-mod=mod GOPATH="$dir/go"
go mod init example.org/renameio >/dev/null 2>&1
go get github.com/google/renameio/v2@v2.0.2 >/dev/null 2>&1
go build -o renameio .
got=$(./renameio "$dir")
want='WriteFile 0600, NewPendingFile 0644'
echo "github.com/google/renameio/v2 v2.0.2: $got"
if [ "$got" != "$want" ]; then
	echo "changed, was: $want" >&2
	exit 1
fi
