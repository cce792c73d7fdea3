package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	_ "embed"
)

//go:embed guest/init.sh
var initScript string

// guest is a virtual machine that runs a job once.
type guest struct {
	kernel kernel
	root   string // disk
	job    *job
	tests  string // pattern; "": all
	memory int    // MiB
	append string // arguments of the kernel
	cards  string // model of two network cards that are joined; "": none
}

// emulation has the processor's features but those with which some kernels boot
// slowly or not at all. The clock counts instructions, 1 ns each, and skips idle time.
var emulation = []string{
	"-accel", "tcg,thread=single,tb-size=512", "-icount", "shift=0,sleep=off",
	"-cpu", "max,la57=off,pcid=off,erms=off,fsrm=off", "-smp", "1",
	"-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-device", "virtio-rng-pci",
}

// arguments of every kernel: output on the serial port, and a clock that needs no
// calibration.
const arguments = "console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check tsc=reliable clocksource=tsc random.trust_cpu=on net.ifnames=0 "

// run boots the guest, and copies its output to out with the name before each line. Its
// files come to the folder results. An exit code of the job other than 0 is an error.
func (g guest) run(ctx context.Context, name string, out io.Writer, results string) error {
	disk, err := g.job.disk(ctx, name, cmp.Or(g.tests, "."))
	if err != nil {
		return err
	}
	defer os.Remove(disk)
	args := append([]string{"-m", strconv.Itoa(g.memory), "-kernel", g.kernel.vmlinuz(), "-initrd", g.kernel.initrd(), "-append", arguments + g.append}, emulation...)
	for _, drive := range []string{g.root + ",snapshot=on", g.kernel.modules() + ",snapshot=on", disk} {
		args = append(args, "-drive", "format=raw,if=virtio,cache=unsafe,file="+drive)
	}
	for _, id := range []string{"1", "2"} {
		if g.cards != "" {
			args = append(args, "-netdev", "hubport,hubid=0,id=hub"+id, "-device", g.cards+",netdev=hub"+id+",mac=52:54:00:00:00:0"+id)
		}
	}
	qemu := exec.CommandContext(ctx, "nice", append([]string{"-n", "19", "qemu-system-x86_64"}, args...)...)
	qemu.Stderr = os.Stderr
	serial, err := qemu.StdoutPipe()
	if err != nil {
		return err
	}
	if err := qemu.Start(); err != nil {
		return fmt.Errorf("start the guest: %w", err)
	}
	code, readErr := follow(serial, name+": ", out)
	err = qemu.Wait()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("the guest did not end in time, raise -timeout or name fewer -packages: %w", ctx.Err())
	case readErr != nil:
		err = readErr
	case code == "":
		err = errors.Join(errors.New("the guest ended without an exit code, see the last lines of its output"), err)
	case code != "0":
		err = fmt.Errorf("the job ended with exit code %s", code)
	default:
		err = nil
	}
	return errors.Join(err, copyOut(context.WithoutCancel(ctx), disk, results))
}

// copyOut copies the folder out of a job's disk.
func copyOut(ctx context.Context, disk, results string) error {
	if err := os.RemoveAll(results); err != nil {
		return err
	}
	if err := os.MkdirAll(results, 0o755); err != nil {
		return err
	}
	if _, err := shell(ctx, "", "debugfs", "-R", "rdump /out "+results, disk); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(results, "out", "*"))
	for _, f := range files {
		err = errors.Join(err, os.Rename(f, filepath.Join(results, filepath.Base(f))))
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(results, "out")))
}
