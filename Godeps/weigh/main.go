// Command weigh prints what each part of the flannel binary weighs, as a Markdown table.
//
//	go run ./Godeps/weigh
//
// The size of machine code is known for each function, and so for each module. All else
// in the file, such as tables of functions, types and strings, is divided as the code.
package main

import (
	"cmp"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
)

// parts are the parts of the program by the paths that their packages begin with. The
// first match counts.
var parts = []struct {
	name     string
	prefixes []string
}{
	{"flannel itself", []string{"github.com/coreos/flannel", "main"}},
	{"etcd: client and embedded server", []string{"go.etcd.io/"}},
	{"gRPC, protobuf, OpenTelemetry: for etcd", []string{"google.golang.org/", "go.opentelemetry.io/", "github.com/grpc-ecosystem/", "github.com/golang/protobuf", "github.com/gogo/"}},
	{"Kubernetes client", []string{"k8s.io/", "sigs.k8s.io/"}},
	{"WireGuard in user space", []string{"golang.zx2c4.com/"}},
	{"CNI and its plugins", []string{"github.com/containernetworking/", "github.com/coreos/go-iptables", "github.com/networkplumbing/"}},
	{"metrics (Prometheus)", []string{"github.com/prometheus/"}},
	{"eBPF, netlink, nftables", []string{"github.com/cilium/", "github.com/vishvananda/", "github.com/google/nftables", "github.com/mdlayher/"}},
}

const (
	standard = "Go: runtime and standard library"
	other    = "other modules"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "weigh: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "flannel-weigh-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// The shipped file has no symbols, which tell the functions apart.
	shipped, err := build(ctx, filepath.Join(dir, "shipped"), "-s -w -funcalign=16")
	if err != nil {
		return err
	}
	info, err := os.Stat(shipped)
	if err != nil {
		return err
	}
	named, err := build(ctx, filepath.Join(dir, "named"), "-w -funcalign=16")
	if err != nil {
		return err
	}
	code, err := codeOf(named)
	if err != nil {
		return fmt.Errorf("read symbols: %w", err)
	}
	return printTable(out, code, info.Size())
}

func build(ctx context.Context, output, ldflags string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags="+ldflags, "-o", output, "github.com/coreos/flannel")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build flannel: %w\n%s", err, text)
	}
	return output, nil
}

// codeOf returns the size of the machine code of each part.
func codeOf(program string) (map[string]uint64, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	code := make(map[string]uint64)
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC {
			code[partOf(packageOf(s.Name))] += s.Size
		}
	}
	return code, nil
}

// packageOf returns the path of the package that a function is in. Dots in the path's
// last element are escaped.
func packageOf(symbol string) string {
	symbol, _, _ = strings.Cut(symbol, "[") // arguments of generic functions have paths, too
	slash := strings.LastIndexByte(symbol, '/') + 1
	last, _, _ := strings.Cut(symbol[slash:], ".")
	return symbol[:slash] + last
}

// partOf returns the part that a package belongs to.
func partOf(path string) string {
	for _, p := range parts {
		if slices.ContainsFunc(p.prefixes, func(prefix string) bool { return strings.HasPrefix(path, prefix) }) {
			return p.name
		}
	}
	if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
		return standard
	}
	return other
}

func printTable(out io.Writer, code map[string]uint64, file int64) error {
	var all uint64
	for _, size := range code {
		all += size
	}
	text := "| part | MB |\n|---|---|\n"
	for _, name := range slices.SortedFunc(maps.Keys(code), func(a, b string) int { return cmp.Compare(code[b], code[a]) }) {
		text += fmt.Sprintf("| %s | %.1f |\n", name, float64(code[name])/float64(all)*float64(file)/1e6)
	}
	_, err := fmt.Fprintf(out, "%s| all | %.1f |\n", text, float64(file)/1e6)
	return err
}
