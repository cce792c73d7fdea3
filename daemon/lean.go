package daemon

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	log "github.com/golang/glog"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

const (
	// gcPercent is how much garbage the daemon gathers in proportion to what it
	// keeps, before it collects; Go's default is 100. Packets make none, as a rule.
	gcPercent = 25
	// leanGCPercent is the same once the start is over: it allocates next to
	// nothing then, and to collect more often costs no processor time. It does
	// with WireGuard in user space, whose packets do make garbage: 5 % of what
	// one stream of TCP carries.
	leanGCPercent = 10
	// leanAfter is for how long the network has been complete, at least, when the
	// start counts as over.
	leanAfter = 5 * time.Second
)

// TuneGC sets how often garbage is collected during the start, unless GOGC says it.
func (o *Options) TuneGC() {
	if o.tunesGC() {
		debug.SetGCPercent(gcPercent)
	}
}

// tunesGC says whether the collector is ours to tune. An embedded etcd allocates
// all the time.
func (o *Options) tunesGC() bool { return os.Getenv("GOGC") == "" && !o.embed }

// lean gives back, once, what memory only the start needed: lists of all leases
// in several forms, and the pages of the program that it ran through.
func (d *daemon) lean(ctx context.Context) error {
	tick := time.NewTicker(leanAfter)
	defer tick.Stop()
	for was, is := false, false; !was; was, is = is, d.WasReady() {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	if d.options.tunesGC() && d.snapshot().config.BackendType != "wireguard" {
		debug.SetGCPercent(leanGCPercent)
	}
	runtime.GC() // what a sync.Pool holds goes with the second
	debug.FreeOSMemory()
	if err := releaseProgram(); err != nil {
		log.V(1).Infof("give back pages of the program: %v", err)
	}
	return nil
}

// releaseProgram takes the pages of the program's file out of the process. To
// start it runs through most of them, most of which are not needed again: the
// tables of what a hundred packages register. They stay in the kernel's page
// cache, so that one which is needed comes back without a read of the disk, in
// less than a microsecond and with fifteen neighbours (madvise(2); mm/memory.c,
// do_fault_around). What can be written to is not the file's, and stays.
func releaseProgram() error {
	p, err := procfs.Self()
	if err != nil {
		return fmt.Errorf("look at the process: %w", err)
	}
	program, err := p.Executable()
	if err != nil {
		return fmt.Errorf("look up the program's file: %w", err)
	}
	maps, err := p.ProcMaps()
	if err != nil {
		return fmt.Errorf("read mappings: %w", err)
	}
	for _, m := range maps {
		if m.Pathname != program || m.Perms.Write {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.StartAddr, m.EndAddr-m.StartAddr, unix.MADV_DONTNEED); errno != 0 {
			return os.NewSyscallError("madvise", errno)
		}
	}
	return nil
}
