package tun

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// attachTo tells the test's own binary to attach a queue to a device, by the
// device node that attachBy names: not every machine's /dev/net/tun is open to all.
const (
	attachTo = "TUN_TEST_ATTACH_TO"
	attachBy = "TUN_TEST_ATTACH_BY"
)

func TestMain(m *testing.M) {
	name := os.Getenv(attachTo)
	if name == "" {
		os.Exit(m.Run())
	}
	_, err := attachQueue(os.Getenv(attachBy), name)
	switch {
	case err == nil:
		os.Stdout.WriteString("attached")
	case errors.Is(err, unix.EPERM):
		os.Stdout.WriteString("refused")
	default:
		os.Stdout.WriteString(err.Error())
	}
}

// attachQueue attaches to a device, or makes one, as any program can.
func attachQueue(node, name string) (fd int, err error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)
	if fd, err = unix.Open(node, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return -1, err
	}
	return fd, unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
}

// attach tries to attach to the device as a user without capabilities.
func attach(t *testing.T, name string, uid, gid uint32) string {
	t.Helper()
	// The test's folder is root's alone.
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "tun-attach-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, node := dir+"/attach", dir+"/tun"
	err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, exe, 0o755),
		unix.Mknod(node, unix.S_IFCHR, int(unix.Mkdev(10, 200))), os.Chmod(node, 0o666))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = []string{attachTo + "=" + name, attachBy + "=" + node}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("attach as %d: %v\n%s", uid, err, out)
	}
	return strings.TrimSpace(string(out))
}

// /dev/net/tun is open to all. No other user gets a queue of the device: not of
// a new one, nor of one that an earlier release has left without an owner.
func TestOthersCannotAttach(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Namespace("tun")
	try := func(name string, uid, gid uint32) (result string) {
		t.Helper()
		if err := h.Do(func() error { result = attach(t, name, uid, gid); return nil }); err != nil {
			t.Fatal(err)
		}
		return result
	}
	const nobody = 65534
	leave := func(name string, give func(fd int) error) error {
		fd, err := attachQueue(clonePath, name)
		if err != nil {
			return err
		}
		return errors.Join(give(fd), unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1), unix.Close(fd))
	}
	toNobody := func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETOWNER, nobody) }
	toNoOwner := func(int) error { return nil } // Linux 7.3 refuses others such a device itself
	if err := h.Do(func() error { return errors.Join(leave("flannel1", toNoOwner), leave("theirs", toNobody)) }); err != nil {
		t.Fatal(err)
	}
	if got := try("theirs", nobody, nobody); got != "attached" {
		t.Fatalf("device of the user: %s; the test tests nothing", got)
	}
	for _, name := range []string{"flannel0", "flannel1"} {
		var d *Device
		if err := h.Do(func() (err error) { d, err = Open(Config{Name: name, Queues: 2}); return err }); err != nil {
			t.Fatal(err)
		}
		for what, id := range map[string][2]uint32{"another user": {nobody, nobody}, "a user of our group": {nobody, 0}} {
			if got := try(name, id[0], id[1]); got != "refused" {
				t.Errorf("%s, %s: %s", name, what, got)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCheckHeader(t *testing.T) {
	d, _ := open(t, Config{Name: "flannel%d"})
	if err := d.CheckHeader(); err != nil {
		t.Error(err)
	}
	if err := d.queues[0].control(func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, 12) }); err != nil {
		t.Fatal(err)
	}
	if err := d.CheckHeader(); !errors.Is(err, ErrHeader) {
		t.Errorf("a header of 12 bytes: %v", err)
	}
	if err := errors.Join(d.ResetHeader(), d.CheckHeader()); err != nil {
		t.Errorf("after ResetHeader: %v", err)
	}
}
