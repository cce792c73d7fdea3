package pinned

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// The result is that of the kernel's parameter.
func TestInterpreted(t *testing.T) {
	netnstest.Require(t)
	value, err := os.ReadFile("/proc/sys/net/core/bpf_jit_enable")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	want := err != nil || bytes.Equal(bytes.TrimSpace(value), []byte("0"))
	if slow, err := Interpreted(); slow != want || err != nil {
		t.Errorf("Interpreted: %v, %v; want %v", slow, err, want)
	}
}

// The kernel describes a program to a thread without CAP_BPF as if it had no machine code,
// or refuses to.
func TestInterpretedWithoutCode(t *testing.T) {
	netnstest.Require(t)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	result := make(chan error)
	var slow bool
	go func() {
		runtime.LockOSThread() // without an end: the thread ends with the goroutine
		header, none := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
		err := unix.Capset(&header, &none[0])
		if err == nil {
			slow, err = interpreted(p)
		}
		result <- err
	}()
	if err := <-result; !slow && !errors.Is(err, unix.EPERM) {
		t.Errorf("interpreted: %v, %v", slow, err)
	}
}
