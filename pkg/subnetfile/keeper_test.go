package subnetfile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// block makes path a name that cannot be replaced, until unblock is called: no
// user can put a file in the place of a folder, not even root.
func block(t *testing.T, path string) (unblock func()) {
	t.Helper()
	_ = os.Remove(path) // it may not be there
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// A file that cannot be written ends a start. It ends no daemon that has been at
// work: that one goes on, says why, and writes the file when that works again.
func TestKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "subnet.env")
		k := NewKeeper(path)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- k.Run(ctx) }()

		unblock := block(t, path)
		if err := k.Put(sample()); err == nil || k.Problem() == nil {
			t.Fatalf("at the start, in place of a folder: %v, problem %v", err, k.Problem())
		}
		unblock()
		if err := k.Put(sample()); err != nil || k.Problem() != nil {
			t.Fatalf("at the start: %v, problem %v", err, k.Problem())
		}
		unblock = block(t, path)
		other := sample()
		other.MTU = 1400
		if err := k.Put(other); err != nil {
			t.Fatalf("at work: %v", err)
		}
		time.Sleep(time.Minute)
		if err := k.Problem(); err == nil || !strings.Contains(err.Error(), path) {
			t.Fatalf("problem %v, want one that names %s", err, path)
		}
		unblock()
		time.Sleep(time.Minute)
		if got, err := Read(path); err != nil || got != other || k.Problem() != nil {
			t.Errorf("then the file has %+v, %v; problem %v", got, err, k.Problem())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ends with %v", err)
		}
	})
}

// A file that is right is not written: the folder may be full or read-only.
func TestKeeperLeavesTheRightFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subnet.env")
	if err := Write(path, sample()); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := NewKeeper(path).Put(sample()); err != nil {
		t.Error(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("a file that was right has been replaced: %v", err)
	}
}

// What is no regular file is named, and not waited for.
func TestCheck(t *testing.T) {
	netnstest.Require(t) // to make a device node; a fault here must not replace /dev/null
	dir := t.TempDir()
	device := filepath.Join(dir, "null")
	if err := unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	fifo, link, dangling := filepath.Join(dir, "fifo"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{link: fifo, dangling: filepath.Join(dir, "nowhere")} {
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		fifo: "a named pipe", link: "a named pipe", dir: "a folder", device: "a device node",
		dangling: "", filepath.Join(dir, "none"): "",
	} {
		err := Check(path)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), want)) {
			t.Errorf("Check(%s): %v, want %q", path, err, want)
		}
		if k := NewKeeper(path); want != "" && k.Put(sample()) == nil {
			t.Errorf("Put writes in the place of %s", want)
		}
	}
	if _, err := Read(fifo); err == nil {
		t.Error("Read of a named pipe without a writer gives no error")
	}
}

// A file that is mounted at the path is written in place.
func TestWriteToMountPoint(t *testing.T) {
	netnstest.Require(t)
	dir := t.TempDir()
	path, mounted := filepath.Join(dir, "subnet.env"), filepath.Join(dir, "mounted")
	for i, before := range []string{"", sampleText, strings.Repeat("# long before\n", 100)} {
		for name, text := range map[string]string{path: "", mounted: before} {
			if err := os.WriteFile(name, []byte(text), 0o640); err != nil {
				t.Fatal(err)
			}
		}
		// A container's folders may all be read-only but for what is mounted.
		if err := withMount(mounted, path, i == 0, func() error { return Write(path, sample()) }); err != nil {
			t.Errorf("write a mounted file of %d bytes: %v", len(before), err)
		}
		if got, err := os.ReadFile(mounted); err != nil || string(got) != sampleText {
			t.Errorf("the mounted file has %q, %v", got, err)
		}
	}
}

// withMount calls f where from is mounted at to, on a thread with a mount
// namespace of its own. The thread ends with the goroutine.
func withMount(from, to string, readOnlyFolder bool, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if dir := filepath.Dir(to); err == nil && readOnlyFolder {
			err = errors.Join(unix.Mount(from, to, "", unix.MS_BIND, ""), unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""),
				unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		} else if err == nil {
			err = unix.Mount(from, to, "", unix.MS_BIND, "")
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}
