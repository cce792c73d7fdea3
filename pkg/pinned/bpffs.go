package pinned

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

const bpffs = "/sys/fs/bpf"

// lastingBPFFS returns the bpffs to pin in, or where to mount one. "ip netns exec"
// gives each command its own /sys (ip-netns(8)). A bpffs that is mounted there ends
// with the command, and with it the programs. So without a bpffs it returns that of
// the nearest ancestor process, by a descriptor, which stays valid if the ancestor
// exits.
var lastingBPFFS = sync.OnceValue(func() string {
	if isBPFFS(bpffs) {
		return bpffs
	}
	for pid := os.Getppid(); pid > 0; pid = parent(pid) {
		theirs := fmt.Sprintf("/proc/%d/root%s", pid, bpffs)
		if !isBPFFS(theirs) {
			continue
		}
		if fd, err := unix.Open(theirs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			return fmt.Sprintf("/proc/self/fd/%d", fd)
		}
	}
	return bpffs
})

func isBPFFS(dir string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && uint32(fs.Type) == unix.BPF_FS_MAGIC
}

// parent returns the parent of a process; 0 if there is none, or it is not visible.
func parent(pid int) int {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0
	}
	stat, err := p.Stat()
	if err != nil {
		return 0
	}
	return stat.PPID
}

func mountBPFFS() error {
	if isBPFFS(bpffs) {
		return nil
	}
	// The lock keeps two daemons from both mounting it: the second mount would hide
	// the first one's pins.
	dir, err := os.Open(bpffs)
	if err != nil {
		return explainMount(err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", bpffs, err)
	}
	if isBPFFS(bpffs) {
		return nil
	}
	err = unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700")
	return explainMount(err)
}

// explainMount adds the remedy to an error of the mount. A kernel without eBPF has no
// folder for it (bpf_init in kernel/bpf/inode.c), and no such file system (ENODEV). AppArmor
// refuses a mount with EACCES.
func explainMount(err error) error {
	const what = "mount bpffs at " + bpffs
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%s: %w; %s, or /sys is not the host's", what, err, noEBPF)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: %w; mount it before flannel starts with \"mount -t bpf bpf %s\", or give flannel CAP_SYS_ADMIN", what, err, bpffs)
	}
	return fmt.Errorf("%s: %w", what, err)
}
