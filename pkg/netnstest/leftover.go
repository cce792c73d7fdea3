package netnstest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// namePrefix begins the name of every namespace that this package makes:
// netnstest-<pid>-<start time>-<lab>-<host>.
const namePrefix = "netnstest-"

// runPrefix returns namePrefix with this process's id and start time, which are
// unique within one boot. /run is empty after the next.
func runPrefix() (string, error) {
	pid := os.Getpid()
	start, err := startTime(pid)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s%d-%s-", namePrefix, pid, start), nil
}

// startTime returns field 22 of /proc/<pid>/stat, in clock ticks since boot
// (proc_pid_stat(5)). The second field, the program's name, may contain blanks and
// brackets, so fields are counted from the last bracket.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return "", fmt.Errorf("read start time of process %d: %d fields in stat", pid, len(fields))
	}
	return string(fields[19]), nil
}

// orphaned reports whether the run that made name is dead.
func orphaned(name string) bool {
	rest, ours := strings.CutPrefix(name, namePrefix)
	if !ours {
		return false
	}
	parts := strings.SplitN(rest, "-", 3)
	if len(parts) < 3 {
		return false
	}
	pid, err := strconv.Atoi(parts[0])
	if err != nil {
		return false
	}
	start, err := startTime(pid)
	return errors.Is(err, os.ErrNotExist) || err == nil && start != parts[1]
}

// removeOrphans removes the namespaces of dead runs, and the processes in them.
func removeOrphans() error {
	entries, err := os.ReadDir(netnsDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list network namespaces: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !orphaned(e.Name()) {
			continue
		}
		_, err := killAll(filepath.Join(netnsDir, e.Name()))
		// If another run has removed it meanwhile, that is no error.
		errs = append(errs, err, remove(e.Name()))
	}
	return errors.Join(errs...)
}

// killAll kills every process whose main thread is in the namespace at path, waits
// for their ends, and returns their names.
func killAll(path string) ([]string, error) {
	var ns unix.Stat_t
	if err := unix.Stat(path, &ns); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		return nil, fmt.Errorf("look at network namespace %s: %w", path, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var killed []string
	var errs []error
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !inNamespace(pid, &ns) {
			continue
		}
		name, err := kill(pid, &ns)
		errs = append(errs, err)
		if name != "" {
			killed = append(killed, name)
		}
	}
	return killed, errors.Join(errs...)
}

// inNamespace reports whether the main thread of pid is in the namespace. A
// zombie is in none.
func inNamespace(pid int, ns *unix.Stat_t) bool {
	var s unix.Stat_t
	err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &s)
	return err == nil && s.Dev == ns.Dev && s.Ino == ns.Ino
}

// kill kills pid if it is still in the namespace, and waits for its end. A pidfd
// stays with its process, so a new process with the same id is not killed.
func kill(pid int, ns *unix.Stat_t) (string, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return "", nil // it has ended
	}
	defer unix.Close(fd)
	if !inNamespace(pid, ns) {
		return "", nil
	}
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	name := fmt.Sprintf("%d (%s)", pid, bytes.ReplaceAll(bytes.Trim(cmdline, "\x00"), []byte{0}, []byte{' '}))
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return "", nil
		}
		return name, fmt.Errorf("kill process %s: %w", name, err)
	}
	const patience = 10_000 // ms
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, patience)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return name, fmt.Errorf("wait for process %s: %w", name, err)
		case n == 0:
			return name, fmt.Errorf("wait for process %s: still alive %d ms after SIGKILL", name, patience)
		default:
			return name, nil
		}
	}
}
