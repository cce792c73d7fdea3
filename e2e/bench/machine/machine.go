// Package machine describes the machine that a benchmark runs on, and meters
// its processors.
package machine

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Description is the context of the figures for readers elsewhere.
type Description struct {
	// CPU is the model. Cores is how many of its cores this process may use.
	CPU   string `json:"cpu"`
	Cores int    `json:"cores"`
	// Kernel is the release. Go is the version that built the benchmark. Iperf3 is the
	// tool's name and version.
	Kernel string    `json:"kernel"`
	Go     string    `json:"go"`
	Iperf3 string    `json:"iperf3"`
	Date   time.Time `json:"date"`
}

// Describe describes this machine.
func Describe(ctx context.Context) (Description, error) {
	fs, err := procfs.NewFS(procfs.DefaultMountPoint)
	if err != nil {
		return Description{}, fmt.Errorf("describe machine: %w", err)
	}
	cpus, err := fs.CPUInfo()
	if err != nil {
		return Description{}, fmt.Errorf("describe machine: %w", err)
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return Description{}, fmt.Errorf("describe machine: uname: %w", err)
	}
	d := Description{
		CPU: "unknown CPU", Cores: runtime.NumCPU(),
		Kernel: unix.ByteSliceToString(uts.Release[:]), Go: runtime.Version(),
		Date: time.Now().UTC().Truncate(time.Second),
	}
	// arm64's /proc/cpuinfo names no model.
	if len(cpus) > 0 && cpus[0].ModelName != "" {
		d.CPU = cpus[0].ModelName
	}
	if d.Iperf3, err = version(ctx, "iperf3"); err != nil {
		return Description{}, err
	}
	return d, nil
}

// version returns a tool's name and version, from the first line of --version.
func version(ctx context.Context, tool string) (string, error) {
	out, err := exec.CommandContext(ctx, tool, "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("get version of %s: %w: %s", tool, err, out)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	line, _, _ = strings.Cut(line, " (")
	return strings.ReplaceAll(strings.TrimSpace(line), ",", ""), nil
}
