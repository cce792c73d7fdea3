package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	_ "embed"
)

// packages are those whose tests touch the kernel, in the order of their runs. The long
// ones are last, so a guest that runs out of time has the results of the others.
var packages = []string{
	"pkg/rtnl", "pkg/netdev", "pkg/tun", "pkg/udpsock", "pkg/masq", "pkg/xtables", "pkg/hostrules", "pkg/uplink", "pkg/hostroute",
	"pkg/probe", "pkg/reconcile", "pkg/pinned", "pkg/offloadrepair", "pkg/inet", "pkg/clock", "pkg/control", "pkg/logpipe",
	"pkg/atomicfile", "pkg/subnetfile", "pkg/netnstest", "cni/natchain", "cni/reservation",
	"backend/vxlan", "backend/hostgw", "backend/all", "cli", "daemon", "cni",
	"backend/wireguard", "backend/fastpath", "pkg/offloadprobe", "backend/udp/bpf", "backend/udp", "e2e",
}

// leftOut are patterns of the tests that need more than a kernel: Docker, systemd, the
// Go tool with a compiler of C, groff, zsh or hours.
var leftOut = map[string]string{
	"e2e": "^Test(Alert|Chaos|Dashboard|Demo|Docker|Image|Package|Release|Systemd|Transcript|CNI|Leak|NothingIsLeftBehind)",
	"cli": "^Test(Manual|Completion)$",
}

// programs are those that tests build, and bench, for figures with -command. In the guest
// a stand-in for the Go tool links to them.
var programs = map[string]string{
	"flannel": ".", "classicpeer": "./e2e/classicpeer", "demo": "./e2e/demo", "bench": "./e2e/bench",
	"cniplugin": "./cni/flannel", "wireguard": "golang.zx2c4.com/wireguard",
	"host-local": "github.com/containernetworking/plugins/plugins/ipam/host-local",
}

//go:embed guest/tests.sh
var testsScript string

// goTool is the stand-in for the Go tool.
//
//go:embed guest/go.sh
var goTool string

// job is the folder that becomes the disk of a guest, mounted at /job.
type job struct {
	dir string
	mu  sync.Mutex // held while a disk is made of dir
}

// newJob builds the tests and the programs. The tests read files of the source tree,
// so a copy of it is there, too.
func newJob(ctx context.Context, o options) (*job, error) {
	dir, err := os.MkdirTemp(o.dir, "job-")
	if err != nil {
		return nil, err
	}
	j := &job{dir: dir}
	if err := j.fill(ctx, o); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return j, nil
}

func (j *job) fill(ctx context.Context, o options) error {
	for _, folder := range []string{"tests", "programs", "tools", "tree", "out"} {
		if err := os.Mkdir(filepath.Join(j.dir, folder), 0o755); err != nil {
			return err
		}
	}
	var list strings.Builder
	for p := range strings.SplitSeq(o.packages, ",") {
		file := filepath.Join(j.dir, "tests", binary(p))
		if err := goBuild(ctx, "test", "-c", "-vet=off", "-ldflags=-s -w", "-o", file, "./"+p); err != nil {
			return err
		}
		fmt.Fprintln(&list, p, binary(p), skips(p, o.skip))
	}
	for name, p := range programs {
		if err := goBuild(ctx, "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(j.dir, "programs", name), p); err != nil {
			return err
		}
	}
	for file, text := range map[string]string{
		"tools/go": goTool, "list": list.String(), "command": cmp.Or(o.command, testsScript),
	} {
		if err := os.WriteFile(filepath.Join(j.dir, file), []byte(text), 0o755); err != nil {
			return err
		}
	}
	return copyTree(".", filepath.Join(j.dir, "tree"))
}

func goBuild(ctx context.Context, args ...string) error {
	c := exec.CommandContext(ctx, "go", args...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// binary returns the name of the test binary of a package, and of its results.
func binary(pkg string) string { return strings.ReplaceAll(pkg, "/", "-") }

// skips returns the pattern of the tests of a package that do not run.
func skips(pkg, more string) string { return cmp.Or(leftOut[pkg], "^$") + "|" + cmp.Or(more, "^$") }

// copyTree copies the regular files of a source tree, except those of Git and of builds.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case e.IsDir() && (rel == ".git" || rel == "bin" || rel == "dist"):
			return filepath.SkipDir
		case e.IsDir():
			return os.MkdirAll(target, 0o755)
		case !e.Type().IsRegular():
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, text, info.Mode().Perm())
	})
}

// disk makes a disk for the guest of that name, which runs the tests of a pattern. It has
// room for the results.
func (j *job) disk(ctx context.Context, name, run string) (string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := os.WriteFile(filepath.Join(j.dir, "run"), []byte(run), 0o644); err != nil {
		return "", err
	}
	disk := j.dir + "-" + name + ".ext4"
	return disk, makeDisk(ctx, disk, j.dir, 300)
}

func (j *job) remove() error { return os.RemoveAll(j.dir) }
