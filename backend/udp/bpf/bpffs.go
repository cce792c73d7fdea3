package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const bpffs = "/sys/fs/bpf"

// pinRoot is the directory of all pins.
func pinRoot() string { return filepath.Join(lastingBPFFS(), "flannel") }

// lastingBPFFS is the bpffs to pin in, or where to mount one. "ip netns exec"
// gives each command a /sys of its own (ip-netns(8)); a bpffs that is mounted
// there ends with the command, and with it the programs, while those who started
// it have one that stays. So where we see none, it is the next ancestor's, by a
// descriptor, since the ancestor may end before us.
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

// parent reads a process' parent (proc_pid_stat(5)); 0 if there is none, or none
// that we may know of.
func parent(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, in parentheses, may hold anything.
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0
	}
	ppid, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return ppid
}

func mountBPFFS() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(bpffs, &fs); err != nil {
		return fmt.Errorf("look for a bpffs at %s: %w", bpffs, err)
	}
	if uint32(fs.Type) == unix.BPF_FS_MAGIC {
		return nil
	}
	// Two daemons that mounted it both would not see each other's pins, and the
	// first not its own.
	dir, err := os.Open(bpffs)
	if err != nil {
		return fmt.Errorf("mount bpffs at %s: %w", bpffs, err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", bpffs, err)
	}
	if err := unix.Statfs(bpffs, &fs); err != nil {
		return fmt.Errorf("look for a bpffs at %s: %w", bpffs, err)
	}
	if uint32(fs.Type) == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs at %s: %w", bpffs, err)
	}
	return nil
}
